//! libmemspy.so, preloaded into a program to record its memory calls.
