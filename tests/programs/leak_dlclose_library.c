/* The library of leak_dlclose.c. */
void *place;
