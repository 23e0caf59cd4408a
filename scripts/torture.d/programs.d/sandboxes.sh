# Programs that give up rights, and places that logs can't be reached from.

program_setpriv() {
    setpriv --reuid=nobody --regid=nogroup --clear-groups bash -c 'id -un; touch denied; echo $?' 2>&1
    setpriv --no-new-privs --bounding-set=-all --inh-caps=-all perl -e 'my @a = (1) x 99999; print scalar(@a), "\n"'
    setpriv --reuid=1234 --clear-groups --pdeathsig=KILL python3 -c 'import os; print(os.getuid(), len([i for i in range(99999)]))'
    setpriv --dump | head -n 3
}

prepare_chroot() {
    mkdir -p root/{bin,lib64,lib/x86_64-linux-gnu,etc,tmp}
    cp /bin/bash /bin/cat /bin/ls root/bin/
    local library
    for library in $(ldd /bin/bash /bin/cat /bin/ls | grep -oE '/[^ ]+' | grep -v ':$' | sort -u); do
        mkdir -p "root$(dirname "$library")" && cp -L "$library" "root$library"
    done
    echo inside >root/etc/name
}

# Inside, the recorder's library is no file: ld.so says so once for each program and goes on.
# After perl's own chroot 8 MiB of lines are kept, no more.
# incomplete: writing stopped \(ENOENT\)
# says: ^ERROR: ld.so: object .* from LD_PRELOAD cannot be preloaded
program_chroot() {
    chroot "$inputs/root" /bin/bash -c 'cat /etc/name; echo "$(ls /)"; (exit 6)'
    echo "$?"
    mkdir -p root && cp -a "$inputs/root" .
    # With its library at hand but not its logs' directory: each program says once that it is not recorded.
    for library in $LD_PRELOAD; do
        mkdir -p "root$(dirname "$library")" && cp "$library" "root$library"
    done
    chroot root /bin/bash -c 'cat /etc/name; echo "$(ls /etc)"; (exit 6)' 2>said
    echo "$?"
    grep -v '^memspy: ' said
    # Perl changes its root while it runs: its log ends there.
    perl -e 'my @a = (1) x 9999; chroot "root" or die; chdir "/"; my @b = (2) x 99999; open my $f, "<", "/etc/name"; print <$f>; $_ = "x" x $_ for 1..50000; exit 3'
    echo "$?"
    rm -r root said
}

program_unshare() {
    unshare -Urpf --mount-proc bash -c 'id -u; echo $$; ls /proc | grep -cE "^[0-9]+$"; x=$(seq 300 | tail -1); echo $x'
    echo "$?"
    unshare -Un python3 -c 'import os; print(os.getuid(), os.listdir("/sys/class/net"))'
    unshare -Urm sh -c 'mount -t tmpfs none /mnt && echo x >/mnt/y && cat /mnt/y; ls /mnt'
    unshare -UrT --monotonic 100000 perl -e 'my @a = (1) x 99999; print scalar(@a), "\n"'
    unshare -Urpf --kill-child sh -c 'sleep 60 & echo $!; exit 3'
    echo "$?"
}

# incomplete: .
program_bwrap() {
    bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-all bash -c 'echo $$; ls /tmp | wc -l; x=$(seq 300 | tail -1); echo $x; touch /usr/x' 2>said
    echo "$?"
    grep -v '^memspy: ' said
    bwrap --bind / / --dev-bind /dev /dev --die-with-parent python3 -c 'print(len([str(i) for i in range(99999)]))'
    rm said
}

# man formats in children under a seccomp filter of its own.
# incomplete: .
# says: ^memspy: 
program_man() {
    local page
    for page in bash tar perl; do
        man -P cat "$page" 2>&1 >/dev/null | grep -v '^memspy: '
        MANWIDTH=80 man -P cat "$page" 2>/dev/null | md5sum
        echo "${PIPESTATUS[0]}"
    done
    man -P cat nosuchpage
    echo "$?"
}

prepare_seccomp() {
    cat >bpf.py <<'END'
import struct, sys
# A filter that answers every call but the listed ones with EPERM (or ends the process: "kill").
def load(offset): return struct.pack("<HBBI", 0x20, 0, 0, offset)
def equal(value, then): return struct.pack("<HBBI", 0x15, 0, 1, value) + struct.pack("<HBBI", 0x06, 0, 0, then)
allow = 0x7fff0000
denied = {"pwrite64": 18, "fallocate": 285, "memfd": 319, "membarrier": 324, "ftruncate": 77}[sys.argv[2]]
rest = {"errno": 0x00050001, "kill": 0x80000000}[sys.argv[1]]
sys.stdout.buffer.write(load(0) + equal(denied, rest) + struct.pack("<HBBI", 0x06, 0, 0, allow))
END
    local call
    for call in pwrite64 fallocate membarrier ftruncate; do
        python3 bpf.py errno $call >errno.$call
        python3 bpf.py kill $call >kill.$call
    done
}

# bwrap installs the filter for the program that it starts.
# incomplete: .
# says: ^memspy: 
program_seccomp() {
    local filter
    for filter in errno.pwrite64 errno.fallocate errno.membarrier errno.ftruncate; do
        bwrap --bind / / --dev-bind /dev /dev --seccomp 9 python3 -c 'print(len([str(i) for i in range(9999)]))' 9<"$inputs/$filter"
        echo "$filter $?"
        bwrap --bind / / --dev-bind /dev /dev --seccomp 9 bash -c 'x=$(seq 300 | tail -1); echo $x; (exit 3)' 9<"$inputs/$filter"
        echo "$filter $?"
    done
}
