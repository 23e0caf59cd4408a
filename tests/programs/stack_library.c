// A library whose `run` calls what it is handed; ROOM makes each build's code and frame different.
void run(void (*call)(void)) {
    volatile char room[ROOM];
    room[0] = 1;
    call();
    room[0] = 2;
}
