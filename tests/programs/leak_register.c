/* The only reference is in a register that exit's caller expects to be kept. */
#include <stdlib.h>

int main(void) {
    register void *held __asm__("rbx") = malloc(62);
    register void *lost __asm__("r12") = malloc(63);
    __asm__ volatile("" : "+r"(held), "+r"(lost));
    lost = 0;
    __asm__ volatile("" : "+r"(held), "+r"(lost));
    exit(0);
    __asm__ volatile("" : : "r"(held), "r"(lost));
}
