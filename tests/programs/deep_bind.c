/* A library loaded with RTLD_DEEPBIND takes memory past every preloaded malloc; the program frees it, and the other way round.
   `deep_bind LIBRARY`. Ends with 0. Events: the program's calls; the free of an address that was never given out. */
#include "oracle.h"

#include <dlfcn.h>

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND);
  if (!library) return 3;
  char *(*take)(void) = (char *(*)(void))dlsym(library, "take");
  void (*give)(char *) = (void (*)(char *))dlsym(library, "give");
  if (!take || !give) return 4;
  oracle_open();
  char *block = take();
  if (strcmp(block, "taken")) return 5;
  told_free(block);
  give(told_malloc(20001));
  return 0;
}
