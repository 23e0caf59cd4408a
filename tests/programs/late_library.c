/* A library whose constructor and destructor allocate: the constructor before main, the destructor after most others. */
#include "oracle.h"

__attribute__((constructor)) static void library_constructor(void) {
  oracle_open();
  told_free(told_malloc(20004));
}
__attribute__((destructor)) static void library_destructor(void) { told_free(told_malloc(20005)); }
