# __rbox_at PATH...: whether the line has come to one of these commands.
function __rbox_at
    set -l path rbox
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and continue
        contains -- "$path $word" $__rbox_commands; or break
        set path "$path $word"
    end
    contains -- "$path" $argv
end

function __rbox_images
    rbox images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null | string match -v '*<none>*' | string replace -r ':latest$' ''
end

function __rbox_containers
    rbox ps -a --format '{{.Names}}' 2>/dev/null
end

function __rbox_volumes
    rbox volume ls -q 2>/dev/null
end

function __rbox_networks
    rbox network ls --format '{{.Name}}' 2>/dev/null
end

function __rbox_copies
    rbox ps -a --format '{{.Names}}:' 2>/dev/null
end
