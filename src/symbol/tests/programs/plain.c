// C with a static function and a chain of calls.
#include <stdlib.h>

__attribute__((noinline)) static void *keep(size_t size) {
    void *block = malloc(size);
    if (!block) abort();
    return block;
}

void *make_table(int rows) {
    void **table = keep(rows * sizeof(void *));
    for (int i = 0; i < rows; i++)
        table[i] = keep(64);
    return table;
}

int main(void) { return make_table(3) == NULL; }
