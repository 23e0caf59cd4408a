// Blocks of sizes 41001 and up, each asked for on a stack of another shape: an alloca of changing size, a realigned
// frame, a signal handler on the interrupted stack and on one of its own, a coroutine, a destructor that an exception
// runs, a library that was bound lazily, an inlined function, a function that was jumped to, a handler that struck in
// the kernel's own library (vdso). All are freed. Prints how many there were.
#include <alloca.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ctime>
#include <ucontext.h>

static void *volatile kept;
static int blocks;

static void __attribute__((noinline)) grab(size_t size) {
    void *block = malloc(size);
    kept = block;
    blocks++;
    free(block);
}

static int __attribute__((noinline)) varying(int size) {
    char *room = static_cast<char *>(alloca(size));
    memset(room, 1, size);
    grab(41001);
    return room[size / 2];
}

static int __attribute__((noinline)) realigned(int depth) {
    alignas(64) volatile char room[128];
    room[0] = 1;
    grab(41002);
    if (depth > 0) realigned(depth - 1);
    return room[0];
}

static void handler(int) { grab(41003); }

static void __attribute__((noinline)) struck(int flags) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(SIGUSR1, &action, nullptr);
    raise(SIGUSR1);
}

static ucontext_t home, away;

static void __attribute__((noinline)) body(int depth) {
    if (depth > 0) return body(depth - 1), void(kept = nullptr);
    grab(41004);
}

static void start() { body(5); }

static void __attribute__((noinline)) coroutine() {
    size_t size = 1 << 16;
    void *room = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&away);
    away.uc_stack.ss_sp = room;
    away.uc_stack.ss_size = size;
    away.uc_link = &home;
    makecontext(&away, start, 0);
    swapcontext(&home, &away);
    munmap(room, size);
}

struct Guard {
    ~Guard() { grab(41005); }
};

static void __attribute__((noinline)) thrower(int depth) {
    Guard guard;
    if (depth == 0) throw std::runtime_error("on purpose");
    thrower(depth - 1);
}

static inline void __attribute__((always_inline)) inlined() { grab(41007); }

static int __attribute__((noinline)) holder(int value) {
    inlined();
    return value + blocks;
}

extern "C" int __attribute__((noinline, used)) jumped_to() {
    grab(41008);
    return blocks;
}

// A call in tail position, as compilers make them: its frame is gone when `jumped_to` runs.
extern "C" int leap();
asm(".text\n.type leap, @function\nleap:\n.cfi_startproc\njmp jumped_to\n.cfi_endproc\n.size leap, . - leap\n");

static volatile sig_atomic_t struck_in_vdso;

static void tick(int, siginfo_t *, void *context) {
    auto *registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    unsigned long vdso = getauxval(AT_SYSINFO_EHDR), at = registers[REG_RIP];
    // It has one page or two of code, all of it behind its headers.
    if (struck_in_vdso < 3 && at > vdso && at - vdso < 8192) {
        struck_in_vdso++;
        grab(41009);
    }
}

static void __attribute__((noinline)) struck_in_the_kernels_library() {
    struct sigaction action = {};
    action.sa_sigaction = tick;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGALRM, &action, nullptr);
    itimerval often = {{0, 2000}, {0, 2000}}, never = {};
    setitimer(ITIMER_REAL, &often, nullptr);
    timespec now;
    while (struck_in_vdso < 3) clock_gettime(CLOCK_MONOTONIC, &now);
    setitimer(ITIMER_REAL, &never, nullptr);
}

int main() {
    for (int round = 0; round < 3; round++) {
        for (int size = 100; size < 5000; size += 1000) varying(size);
        realigned(3);
        struck(0);
        stack_t own = {};
        own.ss_size = 1 << 16;
        own.ss_sp = mmap(nullptr, own.ss_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        sigaltstack(&own, nullptr);
        struck(SA_ONSTACK);
        own.ss_flags = SS_DISABLE;
        sigaltstack(&own, nullptr);
        coroutine();
        try {
            thrower(4);
        } catch (const std::exception &) {
            grab(41006);
        }
        holder(round);
        if (leap() < 0) return 1;
    }
    struck_in_the_kernels_library();
    printf("%d\n", blocks);
    return 0;
}
