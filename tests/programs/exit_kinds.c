/* `exit_kinds KIND COUNT`: COUNT told allocations that are never freed, then the end: return, exit, _exit, _Exit, quick_exit,
   abort, segv, trap, kill, exit_group (by raw system call), exit_main_thread (only that thread), exit_in_thread,
   _exit_in_thread. Events: the oracle's, every one, whatever the end. */
#include "oracle.h"

#include <pthread.h>
#include <signal.h>

static const char *kind;

static int is(const char *name) { return !strcmp(kind, name); }

static void *ends(void *argument) {
  told_malloc(20003);
  if (is("exit_in_thread")) exit(7);
  if (is("_exit_in_thread")) _exit(7);
  return argument;
}

static void *waits(void *argument) {
  for (;;) pause();
  return argument;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  kind = argv[1];
  oracle_open();
  long count = atol(argv[2]);
  for (long i = 0; i < count; i++) told_malloc(24 + i % 100);
  if (is("return")) return 7;
  if (is("exit")) exit(7);
  if (is("_exit")) _exit(7);
  if (is("_Exit")) _Exit(7);
  if (is("quick_exit")) quick_exit(7);
  if (is("abort")) abort();
  if (is("segv")) *(volatile int *)8 = 1;
  if (is("trap")) __builtin_trap();
  if (is("kill")) kill(getpid(), SIGKILL);
  if (is("exit_group")) syscall(SYS_exit_group, 7);
  pthread_t thread, idle;
  if (is("exit_main_thread")) {
    if (pthread_create(&thread, NULL, ends, NULL)) return 1;
    syscall(SYS_exit, 0);
  }
  if (pthread_create(&idle, NULL, waits, NULL) || pthread_create(&thread, NULL, ends, NULL)) return 1;
  pthread_join(thread, NULL);
  return 3;
}
