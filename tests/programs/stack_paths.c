// Blocks that are asked for again and again along ways that stacks seldom take, by the first argument: `recursion` of
// 3000 levels, `jumps` out of nested calls, `coroutines` in turn, `libraries` that are opened and closed in turn (two
// paths follow; each has a function `run` that calls what it is handed). Ends with 0.
#include <dlfcn.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#pragma GCC diagnostic ignored "-Winfinite-recursion"

static void *volatile kept;

static void grab(void) {
    kept = malloc(61001);
    free(kept);
}

static int deep(int levels) {
    volatile char room[32] = {(char)levels};
    if (levels % 500 == 0) grab();
    return levels ? deep(levels - 1) + room[0] : 0;
}

static jmp_buf out;

static int jump(int levels) {
    volatile char room[64] = {(char)levels};
    grab();
    if (levels == 0) longjmp(out, 1);
    return jump(levels - 1) + room[0];
}

static ucontext_t home, away[2];

static int turn(int which, int levels) {
    if (levels) return turn(which, levels - 1) + 1;
    for (;;) {
        grab();
        swapcontext(&away[which], &home);
    }
}

static void begin(int which) { turn(which, 5 + which); }

static int coroutines(void) {
    size_t size = 1 << 16;
    for (int which = 0; which < 2; which++) {
        getcontext(&away[which]);
        away[which].uc_stack.ss_sp = malloc(size);
        away[which].uc_stack.ss_size = size;
        makecontext(&away[which], (void (*)(void))begin, 1, which);
    }
    for (int i = 0; i < 200; i++) swapcontext(&home, &away[i % 2]);
    return 0;
}

static int libraries(char **paths) {
    for (int i = 0; i < 40; i++) {
        void *library = dlopen(paths[i % 2], RTLD_NOW);
        if (!library) return 2;
        void (*run)(void (*)(void)) = (void (*)(void (*)(void)))dlsym(library, "run");
        for (int call = 0; call < 6; call++) run(grab);
        if (dlclose(library)) return 3;
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "";
    if (!strcmp(way, "recursion")) {
        for (volatile int i = 0; i < 20; i++) deep(3000);
        return 0;
    }
    if (!strcmp(way, "jumps")) {
        volatile int jumps = 0;
        setjmp(out);
        if (jumps++ < 100) jump(jumps % 7);
        return 0;
    }
    if (!strcmp(way, "coroutines")) return coroutines();
    return argc == 4 && !strcmp(way, "libraries") ? libraries(argv + 2) : 1;
}
