/* The library that deep_bind loads: takes and gives back blocks of whatever malloc it was bound to. */
#include <stdlib.h>
#include <string.h>

char *take(void) {
  char *block = malloc(20011);
  if (block) strcpy(block, "taken");
  return block;
}

void give(char *block) { free(block); }
