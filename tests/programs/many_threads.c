/* `many_threads COUNT AT_ONCE`: that many threads, so many at a time, each taking and freeing two blocks. Events: 4 told calls
   for each thread, under its own thread number, though tids and thread pointers are used again and again. */
#include "oracle.h"

#include <pthread.h>

static void *work(void *argument) {
  void *first = told_malloc(20001), *second = told_malloc(20002);
  told_free(second);
  told_free(first);
  return argument;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1000, at_once = argc > 2 ? atoi(argv[2]) : 4;
  if (at_once < 1 || at_once > 64) return 2;
  oracle_open();
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 * 1024);
  for (int done = 0; done < count; done += at_once) {
    pthread_t threads[64];
    for (int i = 0; i < at_once; i++)
      if (pthread_create(&threads[i], &small, work, NULL)) return 1;
    for (int i = 0; i < at_once; i++) pthread_join(threads[i], NULL);
  }
  return 0;
}
