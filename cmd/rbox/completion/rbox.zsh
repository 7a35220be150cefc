_rbox_images() {
    local -a names=(${(f)"$(_call_program images rbox images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null)"})
    names=(${names:#*<none>*} ${${(M)names:#*:latest}%:latest})
    compadd -- $names host
    _files
}

_rbox_containers() {
    local -a lines=(${(f)"$(_call_program containers rbox ps -a 2>/dev/null)"})
    compadd -- ${${lines[2,-1]}##* }
}

_rbox_volumes() {
    compadd -- ${(f)"$(_call_program volumes rbox volume ls -q 2>/dev/null)"}
}

if [[ $funcstack[1] == _rbox ]]; then
    _rbox "$@"
else
    compdef _rbox rbox
fi
