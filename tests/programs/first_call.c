/* One allocation function as the very first of the image or of a thread: `first_call FUNCTION [early|thread]`. "early" makes
   the call from .preinit_array, before any library's constructor. Events: the call, then a free. */
#include "oracle.h"

#include <pthread.h>

static void *call(const char *function) {
  if (!strcmp(function, "malloc")) return told_malloc(20001);
  if (!strcmp(function, "calloc")) return told_calloc(3, 20002);
  if (!strcmp(function, "realloc")) return told_realloc(NULL, 20003);
  if (!strcmp(function, "reallocarray")) return told_reallocarray(NULL, 3, 20004);
  if (!strcmp(function, "posix_memalign")) return told_posix_memalign(64, 20005);
  if (!strcmp(function, "aligned_alloc")) return told_aligned_alloc(64, 20006);
  if (!strcmp(function, "memalign")) return told_memalign(64, 20007);
  if (!strcmp(function, "valloc")) return told_valloc(20008);
  if (!strcmp(function, "pvalloc")) return told_pvalloc(20009);
  if (!strcmp(function, "free")) return NULL;
  _exit(2);
}

static void call_and_free(const char *function) {
  oracle_open();
  void *block = call(function);
  if (block) memset(block, 1, 64);
  told_free(block);
}

static void *thread(void *function) {
  call_and_free(function);
  return NULL;
}

static int is(char **argv, const char *when) { return argv[1] && argv[2] && !strcmp(argv[2], when); }

static void early(int argc, char **argv, char **environment) {
  (void)argc;
  if (!is(argv, "early")) return;
  environ = environment; /* libc has not been initialised yet */
  call_and_free(argv[1]);
}
__attribute__((section(".preinit_array"), used)) static void (*preinit)(int, char **, char **) = early;

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  if (is(argv, "early")) return 0;
  if (is(argv, "thread")) {
    pthread_t id;
    return pthread_create(&id, NULL, thread, argv[1]) || pthread_join(id, NULL);
  }
  call_and_free(argv[1]);
  return 0;
}
