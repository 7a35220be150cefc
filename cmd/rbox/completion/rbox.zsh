_rbox_images() {
    local -a names=(${(f)"$(_call_program images rbox images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null)"})
    names=(${names:#*<none>*} ${${(M)names:#*:latest}%:latest})
    compadd -- $names host
    _files
}

_rbox_containers() {
    compadd "$@" -- ${(f)"$(_call_program containers rbox ps -a --format '{{.Names}}' 2>/dev/null)"}
}

_rbox_objects() {
    _rbox_containers
    _rbox_images
    _rbox_volumes
    _rbox_networks
}

_rbox_copies() {
    _rbox_containers -S : -q
    _files
}

_rbox_volumes() {
    compadd -- ${(f)"$(_call_program volumes rbox volume ls -q 2>/dev/null)"}
}

_rbox_networks() {
    compadd -- ${(f)"$(_call_program networks rbox network ls --format '{{.Name}}' 2>/dev/null)"}
}

_rbox_modes() {
    compadd -- private none host
    _rbox_networks
}

if [[ $funcstack[1] == _rbox ]]; then
    _rbox "$@"
else
    compdef _rbox rbox
fi
