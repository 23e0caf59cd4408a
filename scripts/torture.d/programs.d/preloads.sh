# Other libraries before and after the recorder in LD_PRELOAD, sanitizers.

libraries=/usr/lib/x86_64-linux-gnu

# Programs of several kinds under one more preload.
work_beside() {
    beside "$1" "$2" sqlite3 :memory: 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT sum(i), count(DISTINCT hex(i)) FROM n'
    beside "$1" "$2" python3 -c 'import threading, subprocess; a = []; t = [threading.Thread(target=lambda: a.append(len([str(i) for i in range(20000)]))) for _ in range(6)]; [x.start() for x in t]; [x.join() for x in t]; print(a, subprocess.check_output(["echo", "child"]))'
    beside "$1" "$2" perl -e 'my %h = map { $_ => "x" x ($_ % 99) } 1..30000; print scalar(%h), "\n"; exit 3'
    echo "$?"
    beside "$1" "$2" bash -c 'x=$(seq 1000 | sort -n | tail -1); (exit 4); echo "$x $?"'
    echo 'int main(void) { return 0; }' | beside "$1" "$2" gcc -O2 -x c - -o program && beside "$1" "$2" ./program
    echo "$?"
}

program_jemalloc_first() { work_beside first $libraries/libjemalloc.so.2; }
program_jemalloc_last() { work_beside last $libraries/libjemalloc.so.2; }
program_tcmalloc_first() { work_beside first $libraries/libtcmalloc_minimal.so.4; }
program_tcmalloc_last() { work_beside last $libraries/libtcmalloc_minimal.so.4; }
program_mimalloc_first() { work_beside first $libraries/libmimalloc.so.2; }
program_mimalloc_last() { work_beside last $libraries/libmimalloc.so.2; }

prepare_asan() {
    cat >program.cpp <<'END'
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
int main(int count, char **words) {
    std::map<std::string, std::string> map;
    std::thread other([&] { for (int i = 0; i < 9000; i++) map[std::to_string(i)] = std::string(i % 90, 'x'); });
    other.join();
    printf("%zu\n", map.size());
    fflush(stdout);
    char *block = static_cast<char *>(malloc(20001));
    memset(block, 1, 20001);
    if (count > 1 && !strcmp(words[1], "leak")) {
        // By a thread that is gone, so that no stale word of a stack or register hides it.
        std::thread([] { memset(malloc(30001), 1, 30001); }).join();
        free(block);
        return 0;
    }
    if (count > 1 && !strcmp(words[1], "after")) { free(block); return block[7]; }
    free(block);
    return 5;
}
END
    g++ -g -O1 -fsanitize=address -o asan program.cpp
    g++ -g -O1 -fsanitize=undefined -o ubsan program.cpp
    g++ -g -O1 -fsanitize=thread -o tsan program.cpp
}

# Its runtime wants to be first: without that it ends any program that has a preload, whatever it is.
program_asan() {
    local word runtime
    runtime=$(gcc -print-file-name=libasan.so)
    for word in none leak after; do
        beside first "$(readlink -f "$runtime")" "$inputs/asan" $word 2>said
        echo "$?"
        grep -oE 'SUMMARY: .*' said | sed -E 's/ in .*//; s,/.*/,,'
        env -u LD_PRELOAD MEMSPY_LOG= "$memspy" run -q -o logs -- "$inputs/asan" $word 2>said
        echo "run $?"
        grep -oE 'SUMMARY: .*' said | sed -E 's/ in .*//; s,/.*/,,'
        rm -rf logs said
    done
    status_of "$inputs/ubsan"
    beside first "$(readlink -f "$(gcc -print-file-name=libtsan.so)")" "$inputs/tsan"
    echo "tsan $?"
}

program_fakeroot() {
    fakeroot -- bash -c 'touch f; chown 12:34 f; stat -c "%u %g" f; tar cf f.tar f; tar tvf f.tar | cut -d" " -f1,2; id -u'
    echo "$?"
    stat -c '%u %g' f
    rm f.tar
}

program_fakechroot() {
    mkdir -p root/bin root/etc && echo inside >root/etc/name
    fakechroot -- bash -c 'cat /etc/hostname >/dev/null; echo "$?"; chroot root /bin/cat /etc/name 2>/dev/null; echo done'
}

program_faketime() {
    faketime '2001-02-03 04:05:06' date +%F
    faketime '2001-02-03 04:05:06' python3 -c 'import time, datetime; print(datetime.date.today()); t = time.monotonic(); time.sleep(0.01); print(time.monotonic() > t)'
    faketime -f '@2001-02-03 04:05:06 x10' bash -c 'date +%F; ls / | wc -l'
    faketime '2001-02-03 04:05:06' bash -c 'perl -e "print scalar(gmtime) =~ /2001/ ? qq(yes\n) : qq(no\n)"'
}

program_stdbuf() {
    stdbuf -oL awk 'BEGIN { for (i = 0; i < 2000; i++) print i }' | md5sum
    stdbuf -o0 -i0 sed -n 's/the/THE/p' </usr/share/common-licenses/GPL-3 | md5sum
    stdbuf -oL bash -c 'printf "a\nb\n"; ls /nonexistent' 2>&1
    echo "$?"
}
