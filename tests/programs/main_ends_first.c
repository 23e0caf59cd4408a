/* The main thread leaves by pthread_exit; another goes on and ends the process by return. Ends with 0. Events: the
   oracle's, those after the main thread's end included. */
#include "oracle.h"

#include <pthread.h>

static pthread_t first;

static void *work(void *argument) {
  pthread_join(first, NULL);
  for (int i = 0; i < 100; i++) told_free(told_malloc(20001));
  return argument;
}

int main(void) {
  oracle_open();
  first = pthread_self();
  pthread_t other;
  told_free(told_malloc(20002));
  if (pthread_create(&other, NULL, work, NULL)) return 1;
  pthread_exit(NULL);
}
