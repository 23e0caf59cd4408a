// What a program's own unwinders see while it allocates: exceptions through frames with destructors, backtrace() in
// an allocation's callers, a forced unwind by pthread_exit. Prints names and counts, which memspy must not change.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <execinfo.h>
#include <pthread.h>
#include <stdexcept>
#include <string>

static int destroyed;

struct Counted {
    std::string text = std::string(100, 'x');
    ~Counted() { destroyed++; }
};

static int deep(int depth) {
    Counted counted;
    if (depth == 0) throw std::runtime_error(std::string(200, 'y'));
    return deep(depth - 1) + 1;
}

static void show() {
    void *frames[64];
    int count = backtrace(frames, 64);
    char **names = backtrace_symbols(frames, count);
    printf("%d frames\n", count);
    // The rest are libc's, whose addresses differ from build to build, not from run to run.
    for (int i = 0; i < count; i++) puts(strrchr(names[i], '/') ? strchr(names[i], '(') ? strtok(strchr(names[i], '('), "[") : "" : "");
    free(names);
}

static void *leave(void *unused) {
    Counted counted;
    pthread_exit(unused);
}

int main() {
    int caught = 0;
    for (int i = 0; i < 50; i++) {
        try {
            deep(i % 10);
        } catch (const std::runtime_error &error) {
            caught += static_cast<int>(strlen(error.what()));
        }
    }
    show();
    pthread_t thread;
    pthread_create(&thread, nullptr, leave, nullptr);
    pthread_join(thread, nullptr);
    printf("%d caught, %d destroyed\n", caught, destroyed);
    return 0;
}
