# What a program finds on its stage: `$port` is free, `$inputs` holds what prepare_NAME made, `$work` is empty and the
# current directory. Functions below help to say only what is the same twice.

# Waits until the command succeeds, at most a minute.
wait_until() {
    local tries
    for tries in {1..600}; do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    echo "never came true: $*"
    return 1
}

# Runs a command and says how it ended.
status_of() {
    "$@"
    echo "status $?: ${*##*/}"
}

# A preload together with the recorder's: `beside first LIBRARY CMD...` or `beside last LIBRARY CMD...`.
beside() {
    local place=$1 library=$2
    shift 2
    case $place in
        first) LD_PRELOAD="$library${LD_PRELOAD:+ $LD_PRELOAD}" "$@" ;;
        last) LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD }$library" "$@" ;;
    esac
}

# What this shell has open: numbers and kinds, and what is left of background jobs.
descriptors_left() {
    local descriptor
    for descriptor in /proc/$BASHPID/fd/*; do
        [ ! -e "$descriptor" ] || echo "open at the end: ${descriptor##*/}"
    done
    jobs -r
}
