// Makes lines of nearly every kind: heap calls that work and fail, mappings, the break, a second thread, a fork.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *work(void *unused)
{
    free(malloc(30001));
    free(malloc(300002));
    return unused;
}

int main(void)
{
    void *volatile none = malloc(SIZE_MAX / 2);
    void *volatile block = calloc(3, 1001);
    block = realloc(block, 200003);
    block = realloc(block, 400004);
    void *aligned = NULL;
    if (posix_memalign(&aligned, 4096, 5005) != 0) return 1;
    free(aligned);
    free(none);
    char *pages = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mmap(pages, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mprotect(pages + 8192, 4096, PROT_NONE);
    pages = mremap(pages + 16384, 16384, 131072, MREMAP_MAYMOVE);
    munmap(pages, 131072);
    munmap((void *)1, 1);
    sbrk(4096);
    sbrk(-4096);
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0) return 1;
    pthread_join(thread, NULL);
    pid_t child = fork();
    if (child == 0) {
        free(block);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    free(block);
    return 0;
}
