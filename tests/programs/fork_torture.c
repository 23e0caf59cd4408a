/* Three threads allocate without end while the main thread makes `fork_torture COUNT` children in three ways (fork, _Fork, raw
   clone); each child allocates and leaves. Nothing may hang: a lock or a half-written state inherited from another
   thread would. Ends with 0; a child that does not end in 20 seconds is killed and counts as a hang (exit 3). */
#include "oracle.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

static atomic_int over;

static void *allocate(void *argument) {
  while (!atomic_load(&over)) {
    void *block = malloc((size_t)argument);
    block = realloc(block, (size_t)argument * 2);
    free(block);
    void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(mapping, 4096);
    usleep(20);
  }
  return NULL;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 300;
  pthread_t threads[3];
  for (size_t i = 0; i < 3; i++)
    if (pthread_create(&threads[i], NULL, allocate, (void *)(1000 + i))) return 1;
  int failed = 0;
  for (int i = 0; i < count && !failed; i++) {
    int raw = i % 3;
    pid_t id = raw == 0 ? fork() : raw == 1 ? _Fork() : syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0ul);
    if (id == 0) {
      alarm(20);
      /* after a raw clone in a threaded program libc's own heap lock may be held: only mappings are safe there */
      for (int k = 0; k < 20; k++) {
        if (raw == 0) free(malloc(500 + k));
        void *mapping = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(mapping, 8192);
      }
      _exit(7);
    }
    int status;
    if (id < 0 || waitpid(id, &status, 0) != id) failed = 1;
    else if (WIFSIGNALED(status)) failed = WTERMSIG(status) == SIGALRM ? 3 : 4;
    else if (WEXITSTATUS(status) != 7) failed = 5;
  }
  atomic_store(&over, 1);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  return failed;
}
