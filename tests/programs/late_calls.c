/* Calls after everything should be over: atexit handlers, a destructor of the program and one of a library that was loaded
   before memspy's own destructor ran (`late_library`). Events: the oracle's, all of them, those after `end` included. */
#include "oracle.h"

#include <dlfcn.h>

static void at_exit(void) { told_free(told_malloc(20001)); }
__attribute__((destructor)) static void program_destructor(void) { told_free(told_malloc(20002)); }
__attribute__((constructor)) static void program_constructor(void) {
  oracle_open();
  told_free(told_malloc(20003));
}

int main(int argc, char **argv) {
  if (atexit(at_exit)) return 1;
  return argc > 1 && !dlopen(argv[1], RTLD_NOW) ? 3 : 0;
}
