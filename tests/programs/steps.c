/* `steps SCENARIO OP QUIET`: makes calls under a tracer that stops it at any instruction. A breakpoint
   (int3) stands before and after each call that the tracer may want to step through; the first QUIET calls have none.
   What it does is told in the shared file ORACLE, one entry for each call: see `struct entry`. SIGUSR1 makes its handler
   do what the word ACTION says. Scenarios: `calls` (until the word ENOUGH is set, then six more), `threads`, `fork`,
   `_fork`, `clone`, and the ends `return`, `_exit`, `quick_exit`, `execve`, `failing_execve`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TOLD, ACTION, ENOUGH, HANDLED, FORKED };
enum { ALLOCATE = 1, MAP = 2, JUMP = 4, FORK = 8 };
enum { BEGUN = 1, DONE = 2 };
enum { MALLOC, FREE, REALLOC, CALLOC, MEMALIGN, MMAP, MUNMAP };
enum { MAIN, HANDLER, CHILD, THREAD };
enum { ENTRIES = 4096 };

/* A call: `key` is the size of one that acquires memory and the address of one that releases it. */
struct entry {
  uint32_t op, state, who, unused;
  uint64_t key;
};

struct shared {
  uint64_t words[512];
  struct entry entries[ENTRIES];
};

static struct shared *volatile shared;
static volatile uint32_t forked; /* in a child: the calls are the child's */
static volatile int traced = 1;
static sigjmp_buf before;
static volatile uint64_t number;

static void marker(void) {
  if (traced) __asm__ volatile("int3");
}

static struct entry *tell(uint32_t op, uint64_t key, uint32_t who) {
  uint64_t at = __atomic_fetch_add(&shared->words[TOLD], 1, __ATOMIC_SEQ_CST);
  if (at >= ENTRIES) _exit(90);
  struct entry *entry = &shared->entries[at];
  entry->op = op;
  entry->key = key;
  entry->who = forked ? CHILD : who;
  __atomic_store_n(&entry->state, BEGUN, __ATOMIC_SEQ_CST);
  return entry;
}

static void done(struct entry *entry) {
  __atomic_store_n(&entry->state, DONE, __ATOMIC_SEQ_CST);
}

static void *call(int op, uint64_t key, uint32_t who, int marked, void *old) {
  struct entry *entry = tell(op, op == FREE || op == MUNMAP ? (uint64_t)old : key, who);
  void *answer = NULL;
  if (marked) marker();
  switch (op) {
    case MALLOC: answer = malloc(key); break;
    case FREE: free(old); break;
    case REALLOC: answer = realloc(old, key); break;
    case CALLOC: answer = calloc(1, key); break;
    case MEMALIGN: if (posix_memalign(&answer, 64, key)) _exit(91); break;
    case MMAP: answer = mmap(NULL, key, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); break;
    case MUNMAP: if (munmap(old, 4096)) _exit(92); break;
  }
  done(entry);
  if (marked) marker();
  return answer;
}

/* A call of any kind, with what it needs made before and released never. Each has a size of its own. */
static void any_call(int op, uint32_t who, int marked) {
  uint64_t key = op == MMAP ? 4096 * (10000 + ++number) : 1000 + ++number;
  void *old = NULL;
  if (op == FREE || op == REALLOC) old = call(MALLOC, 100000 + number, who, 0, NULL);
  if (op == MUNMAP) old = call(MMAP, 4096 * (20000 + number), who, 0, NULL);
  call(op, key, who, marked, old);
}

static void three_calls(uint32_t who) {
  for (int i = 0; i < 3; i++) any_call(MALLOC, who, 0);
}

static void in_child(void) {
  forked = 1;
  traced = 0;
}

static void handler(int signal) {
  (void)signal;
  uint64_t action = shared->words[ACTION];
  uint64_t times = ++shared->words[HANDLED];
  if (action & ALLOCATE) call(MALLOC, 50000 + times, HANDLER, 0, NULL);
  if (action & MAP) call(MMAP, 4096 * (100000 + times), HANDLER, 0, NULL);
  if (action & FORK) {
    pid_t child = _Fork();
    if (child == 0) {
      in_child();
      three_calls(CHILD);
      _exit(0);
    } else {
      shared->words[FORKED] = child;
    }
  }
  if (action & JUMP) siglongjmp(before, 1);
}

static void *thread_calls(void *own) {
  any_call(MALLOC, THREAD + (long)own, 1);
  three_calls(THREAD + (long)own);
  return NULL;
}

/* One thread waits while the others come and go, so that each way of finding a buffer is gone. */
static pthread_barrier_t barrier;
static void *waiting_thread(void *own) {
  thread_calls(own);
  pthread_barrier_wait(&barrier);
  return NULL;
}

static void threads(void) {
  pthread_t waiting, other;
  pthread_barrier_init(&barrier, NULL, 2);
  if (pthread_create(&waiting, NULL, waiting_thread, NULL)) _exit(93);
  for (long i = 1; i < 4; i++) {
    if (pthread_create(&other, NULL, thread_calls, (void *)i) || pthread_join(other, NULL)) _exit(93);
  }
  pthread_barrier_wait(&barrier);
  pthread_join(waiting, NULL);
}

static void child(void) {
  in_child();
  traced = 1; /* by the tracer that follows it */
  any_call(MALLOC, CHILD, 1);
  three_calls(CHILD);
  _exit(0);
}

static void wait_for(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) == pid && !WIFEXITED(status) && !WIFSIGNALED(status)) {}
}

int main(int argc, char **argv) {
  if (argc < 4) return 0; /* the new image of `execve` */
  int fd = open(getenv("ORACLE"), O_RDWR);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || shared == MAP_FAILED) return 94;
  close(fd);
  mallopt(M_TOP_PAD, 64 << 20); /* the heap grows once, so that a call is one line */
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_NODEFER};
  sigaction(SIGUSR1, &action, NULL);
  const char *scenario = argv[1];
  int op = atoi(argv[2]);
  for (int i = 0; i < atoi(argv[3]); i++) any_call(MALLOC, MAIN, 0);

  if (!strcmp(scenario, "calls")) {
    sigsetjmp(before, 1);
    while (!shared->words[ENOUGH]) any_call(op, MAIN, traced);
    for (uint64_t i = 0; i < shared->words[ENOUGH]; i++) any_call(op, MAIN, 0);
  } else if (!strcmp(scenario, "threads")) {
    threads();
  } else if (!strcmp(scenario, "fork") || !strcmp(scenario, "_fork") || !strcmp(scenario, "clone")) {
    marker();
    pid_t pid = scenario[0] == '_' ? _Fork() : scenario[0] == 'f' ? fork() : syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) child();
    marker();
    wait_for(pid);
  }
  three_calls(MAIN);
  if (shared->words[FORKED]) wait_for(shared->words[FORKED]);
  if (forked) _exit(0);
  three_calls(MAIN);
  marker();
  if (!strcmp(scenario, "_exit")) _exit(7);
  if (!strcmp(scenario, "quick_exit")) quick_exit(7);
  char *end[] = {argv[0], NULL}, *nothing[] = {NULL};
  if (!strcmp(scenario, "execve")) execve("/proc/self/exe", end, nothing);
  if (!strcmp(scenario, "failing_execve")) {
    execve("/nonexistent", end, nothing);
    three_calls(MAIN);
    marker();
    three_calls(MAIN);
  }
  return 7;
}
