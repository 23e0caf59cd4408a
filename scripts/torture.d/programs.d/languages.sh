# Interpreters and runtimes, at work.

# One of Python's own test modules: each test with its answer, and the whole.
python_tests() {
    python3 -m test -v "$@" >said 2>&1
    local status=$?
    grep -oE '^test\w+ \([^)]*\)' said | sort -u | wc -l
    grep -E '^(FAIL|ERROR):' said | sort
    grep -E '^Ran [0-9]+ tests' said | sed 's/ in .*//'
    grep -E '^(Result|== Tests result): ' said | sort -u
    rm said
    return $status
}

# subjects: python3
program_python_threading() { status_of python_tests test_threading; }
# subjects: python3
program_python_subprocess() { status_of python_tests test_subprocess; }
# subjects: python3
program_python_mmap() { status_of python_tests test_mmap; }
# subjects: python3
program_python_ctypes() { status_of python_tests test_ctypes; }
# subjects: python3
program_python_fork() { status_of python_tests test_fork1 test_wait3 test_wait4 test_posix test_signal; }

# subjects: perl
program_perl() {
    perl -Mthreads -e 'my @t = map { my $n = $_; threads->create(sub { my %h = map { $_ => $_ ** 2 } 1..3000 * $n; my $s = 0; $s += $_ for values %h; $s }) } 1..4; print $_->join, "\n" for @t'
    perl -e '$| = 1; for my $i (1..5) { my $p = open(my $c, "-|") // die; if (!$p) { print "child $i\n"; exit $i } print <$c>; close $c; print $? >> 8, "\n" }'
    perl -e '$SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; 1 while 1 }; print $@; kill KILL => $$'
    echo "$?"
    perl -ne '$n{$_}++ for /\w+/g; END { print "$_ $n{$_}\n" for (sort { $n{$b} <=> $n{$a} || $a cmp $b } keys %n)[0..9] }' /usr/share/common-licenses/GPL-3
}

# subjects: node
program_node() {
    cat >workers.js <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) {
    const zlib = require('zlib');
    const text = Buffer.from('x'.repeat(100000) + workerData);
    parentPort.postMessage(zlib.inflateSync(zlib.deflateSync(text)).length);
} else {
    const child = require('child_process').execFileSync('/bin/echo', ['child']).toString();
    const one = n => new Promise(done => new Worker(__filename, { workerData: n }).on('message', done));
    Promise.all([1, 22, 333].map(one)).then(all => {
        const map = new Map();
        for (let i = 0; i < 200000; i++) map.set('k' + i, { i });
        const wasm = new WebAssembly.Memory({ initial: 100 }).buffer.byteLength;
        console.log(all, map.size, wasm, child, require('crypto').createHash('sha256').update('a').digest('hex'));
        process.exitCode = 4;
    });
}
END
    status_of node workers.js
    status_of node -e 'process.kill(process.pid, "SIGTERM"); setTimeout(() => {}, 60000)'
}

prepare_java() {
    cat >Work.java <<'END'
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Work {
    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Integer>> all = new ArrayList<>();
        for (int n = 1; n <= 8; n++) {
            int seed = n;
            all.add(pool.submit(() -> {
                Map<Integer, byte[]> kept = new HashMap<>();
                for (int i = 0; i < 20000; i++) kept.put(i * seed % 997, new byte[i % 2000]);
                return kept.size();
            }));
        }
        for (Future<Integer> one : all) System.out.println(one.get());
        pool.shutdown();
        System.gc();
        var direct = java.nio.ByteBuffer.allocateDirect(1 << 20);
        System.out.println(direct.capacity() + " " + IntStream.range(0, 100000).parallel().sum());
        System.out.println(new String(new ProcessBuilder("/bin/echo", "child").start().getInputStream().readAllBytes()));
        Object none = null;
        try { none.hashCode(); } catch (NullPointerException caught) { System.out.println("caught"); }
        System.exit(6);
    }
}
END
    javac Work.java
}

# subjects: java
program_java() {
    local options
    for options in -XX:+UseSerialGC -XX:+UseG1GC -Xint; do
        status_of java -Xmx128m -XX:-UsePerfData $options -cp "$inputs" Work
    done
    java -version 2>&1 | wc -l
}

# subjects: tclsh
program_tclsh() {
    cat >work.tcl <<'END'
for {set i 0} {$i < 50000} {incr i} { set a(key$i) [string repeat x [expr {$i % 40}]] }
puts [array size a]
set p [open "|sort -r | head -3" r+]
foreach w {b a d c} { puts $p $w }
close $p write
puts [read $p]
catch { close $p }
puts [catch { error boom } message] ; puts $message
exec true &
exit 5
END
    status_of tclsh work.tcl
}

# subjects: luajit
program_luajit() {
    status_of luajit -e 'local t = {} for i = 1, 300000 do t[i] = {i} end collectgarbage() print(#t) local f = io.popen("echo child") print(f:read("*a")) os.exit(2)'
}

# subjects: sqlite3
program_sqlite() {
    sqlite3 data.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO t SELECT i, hex(i * i) FROM n; CREATE INDEX tb ON t(b);'
    sqlite3 data.db 'SELECT count(*), sum(length(b)), max(b) FROM t; PRAGMA integrity_check;' &
    sqlite3 data.db 'SELECT count(*) FROM t AS x JOIN t AS y ON x.b = y.b;' >joined
    wait
    cat joined
    sqlite3 data.db '.dump' | md5sum
    sqlite3 data.db 'SELECT * FROM missing' 2>&1
    echo "$?"
    sqlite3 data.db 'PRAGMA mmap_size=100000000; VACUUM; SELECT count(*) FROM t'
}
