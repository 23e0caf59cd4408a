/* The same for _exit, which no handler comes before. */
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    register void *held __asm__("r13") = malloc(64);
    register void *lost __asm__("r14") = malloc(65);
    __asm__ volatile("" : "+r"(held), "+r"(lost));
    lost = 0;
    __asm__ volatile("" : "+r"(held), "+r"(lost));
    _exit(0);
    __asm__ volatile("" : : "r"(held), "r"(lost));
}
