// Prints the call stack of each of its allocations as it sees them itself: lines "alloc SIZE IP IP …", innermost
// first, then its /proc/self/maps. From that a test writes a log with stacks, without the shim.
#include <cstdio>
#include <cstdlib>
#include <execinfo.h>

__attribute__((noinline)) static void *take(size_t size) {
    void *ips[64];
    int depth = backtrace(ips, 64);
    printf("alloc %zu", size);
    for (int i = 0; i < depth; i++) printf(" %p", ips[i]);
    printf("\n");
    return malloc(size);
}

struct Table {
    void *rows[4];
    __attribute__((noinline)) void fill(int count) {
        for (int i = 0; i < count; i++) rows[i] = row(i);
    }
    // Inlined into fill.
    __attribute__((always_inline)) void *row(int i) { return take(20000 + i); }
};

extern "C" __attribute__((noinline)) void *keep_name(void) { return take(777); }

int main() {
    Table table;
    table.fill(3);
    void *name = keep_name();
    for (int i = 0; i < 3; i++) free(table.rows[i]);
    printf("kept %p\n", name);
    FILE *maps = fopen("/proc/self/maps", "r");
    for (char line[4096]; fgets(line, sizeof line, maps);) fputs(line, stdout);
    return 0;
}
