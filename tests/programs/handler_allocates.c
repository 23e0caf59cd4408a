/* A timer interrupts an allocation loop ten thousand times a second; the handler maps, unmaps and, when it did not interrupt
   libc's malloc, allocates. Ends with 0 after `handler_allocates STEPS`. Standard output: how many mmap and malloc calls the
   handler made, and how many loops there were, for a comparison with the log. */
#include "oracle.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

static volatile sig_atomic_t in_malloc;
static volatile long handler_maps, handler_blocks;

static void handler(int signal) {
  (void)signal;
  int kept = errno;
  void *mapping = mmap(NULL, 12288, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED || munmap(mapping, 12288)) _exit(3);
  handler_maps++;
  if (!in_malloc) {
    free(malloc(30001));
    handler_blocks++;
  }
  errno = kept;
}

int main(int argc, char **argv) {
  long steps = argc > 1 ? atol(argv[1]) : 200000;
  struct sigaction action = {.sa_handler = handler};
  struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
  if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &often, NULL)) return 1;
  long loops = 0;
  while (loops < steps || handler_blocks < 20) {
    in_malloc = 1;
    errno = UNTOUCHED;
    void *block = malloc(40 + loops % 100);
    errno_untouched("malloc");
    free(block);
    errno_untouched("free");
    in_malloc = 0;
    for (volatile int work = 0; work < 20; work++) {}
    loops++;
  }
  if (setitimer(ITIMER_REAL, &never, NULL)) return 1;
  char line[96];
  int length = snprintf(line, sizeof line, "%ld %ld %ld\n", (long)handler_maps, (long)handler_blocks, loops);
  return write(1, line, length) != length;
}
