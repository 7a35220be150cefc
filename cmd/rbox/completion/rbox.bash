# Words are put together again here, since bash takes them apart at : and =,
# and bash-completion, which could do it, need not be installed.

# _rbox_images: lists them as they are typed.
_rbox_images() {
    local form='{{.Repository}}{{if ne .Tag "latest"}}:{{.Tag}}{{end}}'
    [[ $typed != *:* ]] || form='{{.Repository}}:{{.Tag}}'
    "$program" images --format "$form" 2>/dev/null
}

_rbox_containers() { "$program" ps -a --format '{{.Names}}' 2>/dev/null; }

_rbox_volumes() { "$program" volume ls -q 2>/dev/null; }

_rbox_networks() { "$program" network ls --format '{{.Name}}' 2>/dev/null; }

# _rbox_offer KIND [WORDS]: offers what begins as $typed does.
_rbox_offer() {
    local IFS=$'\n' names= name
    case $1 in
    words) names=${2// /$'\n'} ;;
    words:*) names=${1#words:} names=${names//,/$'\n'} ;;
    programs) mapfile -t COMPREPLY < <(compgen -c -- "$typed") ;;
    files) [[ $typed == *:* ]] || compopt -o default ;;
    images)
        names=$(_rbox_images)
        [[ $path != *' '@(run|create) ]] || names+=$'\nhost'
        [[ $typed != [./~]* ]] || compopt -o default
        ;;
    containers) names=$(_rbox_containers) ;;
    volumes) names=$(_rbox_volumes) ;;
    networks) names=$(_rbox_networks) ;;
    modes) names=$(printf '%s\n' private none host; _rbox_networks) ;;
    objects) names=$(_rbox_containers; _rbox_images; _rbox_volumes; _rbox_networks) ;;
    copies)
        [[ $typed == *:* ]] || compopt -o default -o nospace
        names=$("$program" ps -a --format '{{.Names}}:' 2>/dev/null)
        ;;
    esac
    for name in $names; do
        [[ $name != "$typed"* || $name == '<none>'* ]] || COMPREPLY+=("$name")
    done
}

# _rbox_valued FLAG: whether the flags of the word FLAG, which may be several
# letters, take the next word as value. Sets flag to the one that does.
_rbox_valued() {
    flag=$1
    if [[ $1 == --* ]]; then
        [[ $valued == *" $1 "* ]]
        return
    fi
    local i
    for ((i = 1; i < ${#1}; i++)); do
        flag=-${1:i:1}
        if [[ $valued == *" $flag "* ]]; then
            ((i == ${#1} - 1))
            return
        fi
    done
    return 1
}

_rbox() {
    local program=${1/#\~/$HOME} line=${COMP_LINE:0:COMP_POINT}
    local -a words=()
    local i piece bare
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]} bare=${line#"${line%%[![:space:]]*}"}
        [[ $bare == "$line" && ${#words[@]} -gt 0 ]] || words+=('')
        [[ $bare == "$piece"* ]] || piece=$bare
        line=${bare#"$piece"}
        words[-1]+=$piece
    done

    local path=rbox typed=${words[-1]} word flag= ended= wants= count=0
    local commands offered flags valued kinds more passes
    _rbox_describe "$path"
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]} wants=
        if [[ -z $ended && $word == -- ]]; then
            ended=1
        elif [[ -z $ended && $word == -?* ]]; then
            if [[ $word != --*=* ]] && _rbox_valued "$word"; then
                wants=$flag
                ((++i))
            fi
        elif [[ " $commands " == *" $word "* ]]; then
            path+=" $word"
            _rbox_describe "$path"
        else
            ((++count))
            [[ -z $passes ]] || ended=1
        fi
    done

    local head= c
    COMPREPLY=()
    if ((i == ${#words[@]})) && [[ -n $wants ]]; then
        _rbox_value "$path" "$wants"
    elif [[ -z $ended && $typed == --*=* ]]; then
        head=${typed%%=*}= typed=${typed#*=}
        _rbox_value "$path" "${head%=}"
    elif [[ -z $ended && $typed == -* ]]; then
        _rbox_offer words "$flags"
    elif [[ -n $passes && $count -gt 0 ]]; then
        compopt -o default
    elif [[ -n $commands ]]; then
        _rbox_offer words "$offered"
    else
        local -a kind=($kinds)
        ((count < ${#kind[@]} || ! more)) || count=$((${#kind[@]} - 1))
        _rbox_offer "${kind[count]:-nothing}"
    fi

    # Readline replaces what follows the last character that breaks words.
    local whole=$head$typed cut=
    for c in : =; do
        if [[ $COMP_WORDBREAKS == *$c* && $whole == *$c* ]]; then
            piece=${whole%"$c"*}$c
            ((${#piece} <= ${#cut})) || cut=$piece
        fi
    done
    for i in "${!COMPREPLY[@]}"; do
        piece=$head${COMPREPLY[i]}
        COMPREPLY[i]=${piece#"$cut"}
    done
}

complete -F _rbox rbox
