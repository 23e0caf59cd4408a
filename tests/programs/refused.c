/* `refused THREADS`: a program whose libraries' system calls fail. 600 rounds of every kind of allocation in the first
   thread, then THREADS threads with 50 each, then a forked child with 50; each call's errno is looked at. One line at the
   end, and 0. */
#include "oracle.h"

#include <pthread.h>
#include <sys/wait.h>

static void rounds(int count) {
  for (int i = 0; i < count; i++) {
    void *block = told_malloc(100 + i);
    block = told_realloc(block, 2000 + i);
    told_free(block);
    void *mapping = told_mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    told_munmap(mapping, 8192);
  }
}

static void *work(void *argument) {
  rounds(50);
  return argument;
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 0;
  rounds(600);
  for (int i = 0; i < threads; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL)) return 1;
  }
  int status;
  pid_t child = fork();
  if (child == 0) {
    rounds(50);
    _exit(0);
  }
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return 1;
  puts("all went well");
  return 0;
}
