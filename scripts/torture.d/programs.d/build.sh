# Repositories, compilers, and what they make.

prepare_git() {
    git init -q -b main source
    cd source
    {
        for i in $(seq 400); do
            text=$(seq "$i" $((i + 60)))
            printf 'commit refs/heads/main\nmark :%d\ncommitter A <a@example.org> %d +0000\n' "$i" $((1700000000 + i))
            printf 'data <<END\nchange %d\nEND\n' "$i"
            printf 'M 100644 inline dir%d/file%d\ndata %d\n%s\n' $((i % 7)) $((i % 40)) "${#text}" "$text"
        done
        echo done
    } | git fast-import --quiet --done
}

# subjects: git
# vary: /(index|ORIG_HEAD|FETCH_HEAD|.*\.(idx|pack|rev|bitmap))$
program_git() {
    export GIT_AUTHOR_DATE='@1800000000 +0000' GIT_COMMITTER_DATE='@1800000000 +0000'
    git config --global user.name A && git config --global user.email a@example.org
    git config --global safe.directory '*'
    git clone -q --no-local "$inputs/source" clone && cd clone
    git log --stat | md5sum
    git -c pack.threads=2 gc -q --prune=now
    git -c pack.threads=2 repack -qadf --depth=50 --window=50
    git fsck --full --strict 2>&1
    git checkout -q -b side HEAD~100 && echo more >>dir1/file1 && git commit -qam side
    git merge -q main -m merged 2>&1 | sort
    git rev-parse side main && git grep -c 77 main | md5sum && git blame main -- dir1/file1 | md5sum
    git archive main | md5sum
    cd .. && find clone/.git -name '*.pack' | wc -l && rm -rf clone/.git/objects/pack
}

prepare_gcc_make() {
    for i in $(seq 12); do
        printf '#include <stdio.h>\n#include <stdlib.h>\nint f%d(int n) { char *p = malloc(n); snprintf(p, n, "%%d", n * %d); n = atoi(p); free(p); return n; }\n' "$i" "$i" >f$i.c
    done
    {
        for i in $(seq 12); do echo "int f$i(int);"; done
        printf '#include <stdio.h>\nint main(void) { int s = 0;\n'
        for i in $(seq 12); do echo "s += f$i(20);"; done
        printf 'printf("%%d\\n", s); return 0; }\n'
    } >main.c
    printf '#include <map>\n#include <regex>\n#include <string>\nint words(const std::string &s) { std::regex w("[a-z]+"); std::map<std::string, int> m; for (std::sregex_iterator i(s.begin(), s.end(), w), e; i != e; ++i) ++m[i->str()]; return m.size(); }\n' >words.cpp
    printf 'objects := $(patsubst %%.c,%%.o,$(wildcard *.c)) words.o\nprogram: $(objects)\n\t$(CXX) -o $@ $^\n%%.o: %%.c\n\t$(CC) -O2 -c -o $@ $<\n%%.o: %%.cpp\n\t$(CXX) -O1 -c -o $@ $<\n' >Makefile
}

# subjects: make gcc g++ cc
program_gcc_make() {
    cp "$inputs"/* .
    make -s -j2 && ./program && make -j2 && touch f3.c && make -n -j2 | md5sum
    gcc -flto=2 -O2 -o whole f*.c main.c && ./whole
    echo 'int main(void) { return missing; }' | gcc -x c - -o none 2>&1 | grep -c error
    objdump -d program | wc -l >/dev/null
}

prepare_rust() {
    cat >program.rs <<'END'
use std::collections::HashMap;
use std::sync::mpsc;
fn main() {
    let (send, receive) = mpsc::channel::<HashMap<u64, String>>();
    let threads: Vec<_> = (0..4u64).map(|n| {
        let send = send.clone();
        std::thread::spawn(move || send.send((0..5000).map(|i| (i * 4 + n, format!("{i:>20}"))).collect()).unwrap())
    }).collect();
    drop(send);
    let all: HashMap<u64, String> = receive.iter().flatten().collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{} {}", all.len(), all.values().map(String::len).sum::<usize>());
    println!("{:?}", std::panic::catch_unwind(|| -> u32 { panic!("caught") }).is_err());
    std::process::exit(std::process::Command::new("/bin/true").status().unwrap().code().unwrap() + 9);
}
END
    HOME=/root rustc -O -o program program.rs
}

# subjects: program
program_rust() {
    PATH=$inputs:$PATH
    status_of "$inputs/program" 2>&1 | sed "s/thread '<unnamed>' ([0-9]*)/thread/; s/thread '.*' panicked/thread panicked/; s/main.*panicked/panicked/"
}

prepare_go_cgo() {
    export GOCACHE=$PWD/cache GOFLAGS=-mod=mod HOME=$PWD
    mkdir code && cat >code/main.go <<'END'
package main

// #include <stdlib.h>
// #include <string.h>
// static void *filled(size_t n) { void *p = malloc(n); memset(p, 7, n); return p; }
import "C"
import ("fmt"; "os/exec"; "runtime"; "sync"; "unsafe")

func main() {
	var all sync.WaitGroup
	sums := make([]int, 8)
	for worker := 0; worker < 8; worker++ {
		all.Add(1)
		go func(worker int) {
			defer all.Done()
			for i := 1; i < 500; i++ {
				p := C.filled(C.size_t(i))
				for _, b := range unsafe.Slice((*byte)(p), i) { sums[worker] += int(b) }
				C.free(p)
				_ = make([]byte, 1<<14)
			}
		}(worker)
	}
	all.Wait()
	runtime.GC()
	answer, err := exec.Command("/bin/echo", "hello").Output()
	fmt.Println(sums, string(answer), err)
}
END
    printf 'module example\ngo 1.19\n' >code/go.mod
    cd code && go build -o ../program . && chmod -R u+w "$GOCACHE" && rm -rf "$GOCACHE"
}

program_go_cgo() {
    status_of "$inputs/program"
}

prepare_go_static() {
    export GOCACHE=$PWD/cache HOME=$PWD CGO_ENABLED=0
    printf 'package main\nimport "fmt"\nfunc main() { fmt.Println("pure") }\n' >program.go
    go build -o program program.go && chmod -R u+w "$GOCACHE" && rm -rf "$GOCACHE"
}

# It can't be recorded; what counts is that it runs, and that memspy says so (the shell's own log is checked).
program_go_static() {
    status_of "$inputs/program"
    env -u LD_PRELOAD "$memspy" run -- "$inputs/program" 2>&1 | sed "s,$inputs,INPUTS,g"
    env -u LD_PRELOAD "$memspy" doctor -- "$inputs/program" 2>&1 | grep -ci 'static'
}
