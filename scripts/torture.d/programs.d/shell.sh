# Shells, the programs that scripts are made of, and terminals.

program_bash_pipes() {
    seq 20000 | sort -rn | awk '{s += $1} END {print s}'
    for word in a b c; do echo $word; done | while read -r word; do echo "[$word]"; done | tac
    cat <(seq 5) <(seq 6 9) | tee >(wc -l >counted) | md5sum
    wait_until test -s counted
    cat counted
    yes | head -n 5000 | cksum
    false | true
    echo "${PIPESTATUS[@]}"
    grep -c the /usr/share/common-licenses/GPL-3 && ls /usr/share/common-licenses | xargs -n 3 echo
}

program_bash_subshells() {
    x=$( (echo a; (exit 3); echo "$?") | { read -r a; read -r b; echo "$a-$b"; } )
    echo "$x"
    coproc sums { while read -r a b; do echo $((a + b)); done; }
    echo 20 22 >&"${sums[1]}"
    read -r answer <&"${sums[0]}"
    echo "$answer"
    exec {sums[1]}>&- && wait "$sums_PID"
    echo "coproc $?"
    (sleep 60 & trap 'echo trapped; kill $!; exit 7' TERM; kill -TERM $BASHPID; wait)
    echo "trap $?"
    for i in 1 2 3; do (exit $i) & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid"; echo "job $?"; done
    bash -c 'kill -KILL $$'
    echo "killed $?"
    (ulimit -n 20; exec 3<>file 4<&3; ls /proc/self/fd | wc -l)
    dash -c 'f() { echo in $1; }; f $(echo $(echo deep)); (exit 5) || echo $?; set -- a b; echo $#'
}

program_tar_gzip_xz() {
    tar cf licences.tar -C /usr/share --sort=name --mtime=@0 common-licenses
    gzip -9nk licences.tar && xz -T2 -k licences.tar && bzip2 -k licences.tar
    mkdir out && tar xf licences.tar.xz -C out && diff -r out/common-licenses /usr/share/common-licenses && echo same
    gzip -t licences.tar.gz && gunzip -c licences.tar.gz | cmp - licences.tar && echo same
    xz -lv --robot licences.tar.xz | awk '$1 == "totals" {print $2, $4, $5}'
    tar czf - out | tar tzf - | sort | md5sum
}

# subjects: tmux
program_tmux() {
    export TMUX_TMPDIR=$PWD
    tmux -f /dev/null new-session -d -x 80 -y 24 "PS1=prompt: exec bash --norc --noprofile"
    tmux send-keys 'echo one $((40 + 2))' Enter
    wait_until eval 'tmux capture-pane -p | grep -q "^one 42"'
    tmux split-window -d 'echo two >two; sleep 100'
    wait_until test -s two
    tmux list-panes -F '#{pane_width}x#{pane_height}'
    tmux send-keys 'exit 3' Enter
    tmux kill-server
    echo "killed $?"
    wait_until eval '! tmux has-session'
    rm -r tmux-*
}

program_find_and_file() {
    find /usr/share/perl5 -name '*.pm' | sort | md5sum
    find /usr/share/common-licenses -type f -exec md5sum {} + | sort | md5sum
    ls -laR /usr/share/doc | md5sum
    sort --parallel=2 -S 1M /usr/share/common-licenses/* | uniq -c | md5sum
}
