// A thousand blocks of sizes from 70000 on, then death without any last word.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    for (int n = 0; n < 1000; n++) {
        void *volatile block = malloc(70000 + n);
        free(block);
    }
    kill(getpid(), SIGKILL);
    return 0;
}
