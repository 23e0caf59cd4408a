/* Built with -fsanitize=address: leaks 40 bytes and says "done". The sanitizer must still find exactly this leak, and must
   not refuse to start because another library comes first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static void leak(void) {
  char *volatile block = malloc(40);
  strcpy(block, "lost");
  block = NULL;
}

int main(void) {
  leak();
  for (int i = 0; i < 1000; i++) free(malloc(100 + i));
  puts("done");
  return 0;
}
