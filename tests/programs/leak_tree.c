/* Two binary trees, one held by a global, one lost. */
#include <stdlib.h>

struct tree { struct tree *left, *right; char pad[24]; };
static struct tree *held;

static struct tree *grow(int depth) {
    struct tree *tree = calloc(1, sizeof *tree);
    if (depth > 1) {
        tree->left = grow(depth - 1);
        tree->right = grow(depth - 1);
    }
    return tree;
}

static __attribute__((noinline)) void lose(void) { grow(5); }
static __attribute__((noinline)) void overwrite(void) { volatile char frame[4096]; for (int i = 0; i < 4096; i++) frame[i] = 0; }

int main(void) {
    held = grow(4);
    lose();
    overwrite();
    return 0;
}
