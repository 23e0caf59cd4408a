/* `until_told FILE`: allocates, unhurried, until the file exists, then 5,000 blocks of 30,001 bytes and more. Standard output:
   "told". Ends with 0. */
#include "oracle.h"

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  for (int i = 0; access(argv[1], F_OK); i++) {
    for (int j = 0; j < 50; j++) {
      errno = UNTOUCHED;
      free(malloc(20 + (i + j) % 1024));
      errno_untouched("free");
    }
    usleep(500);
  }
  for (int i = 0; i < 5000; i++) free(malloc(30001 + i));
  return puts("told") < 0;
}
