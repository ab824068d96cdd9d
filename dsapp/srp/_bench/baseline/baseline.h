/*
 * What a library has to provide to be measured: the numbers of SRP-6a on the
 * server. baseline.c does the rest. Numbers are big-endian, `size` bytes long
 * unless noted; private values and hashes have HASH_SIZE bytes.
 */
#ifndef BASELINE_H
#define BASELINE_H

#include <stddef.h>

#define HASH_SIZE 32

/* library_version names the library. */
const char *library_version(void);

/* prepare keeps what depends on the group alone: the prime n, the generator g of
 * one byte and the multiplier k of HASH_SIZE bytes. */
void prepare(size_t size, const unsigned char *n, const unsigned char *g, const unsigned char *k);

/* server_public computes b_public = k*v + g^b. */
void server_public(unsigned char *b_public, const unsigned char *v, const unsigned char *b);

/* server_secret computes s = (a_public * v^u)^b. It returns 0 if a_public is out
 * of range. */
int server_secret(unsigned char *s, const unsigned char *a_public, const unsigned char *v,
                  const unsigned char *u, const unsigned char *b);

/* fail ends the program. */
_Noreturn void fail(const char *problem);

#endif
