/*
 * The server's side of SRP-6a with SHA-256, from bytes to bytes, with the numbers
 * of another library: read an exchange, compute it, compare every result, then
 * measure.
 *
 *     program                              the name of the library
 *     program EXCHANGE GROUP BATCHES MS    times, as Go prints benchmarks
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "baseline.h"

#define MAX_SIZE 512

struct bytes {
    unsigned char data[MAX_SIZE];
    size_t size;
};

static struct bytes n, g, identity, salt, v, a_public, b, b_public, key, m1, m2;
static unsigned char label[HASH_SIZE]; /* H(N) xor H(g) */

static const struct {
    const char *name;
    struct bytes *value;
} members[] = {
    {"N", &n}, {"g", &g}, {"I", &identity}, {"s", &salt}, {"v", &v}, {"A", &a_public},
    {"b", &b}, {"B", &b_public}, {"K", &key}, {"M1", &m1}, {"M2", &m2},
};

#define MEMBERS (sizeof members / sizeof members[0])

void fail(const char *problem) {
    fprintf(stderr, "%s: %s\n", library_version(), problem);
    exit(1);
}

static void read_exchange(const char *path) {
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail("exchange cannot be read");
    char name[8], digits[2 * MAX_SIZE + 1];
    size_t found = 0;
    while (fscanf(f, "%7s %1024s", name, digits) == 2) {
        for (size_t i = 0; i < MEMBERS; i++) {
            if (strcmp(name, members[i].name) != 0)
                continue;
            struct bytes *value = members[i].value;
            value->size = strlen(digits) / 2;
            for (size_t j = 0; j < value->size; j++) {
                unsigned byte;
                if (sscanf(digits + 2 * j, "%2x", &byte) != 1)
                    fail("exchange is not hexadecimal");
                value->data[j] = (unsigned char)byte;
            }
            found++;
        }
    }
    fclose(f);
    if (found != MEMBERS)
        fail("exchange is not complete");
    if (v.size != n.size || a_public.size != n.size || b_public.size != n.size || g.size != 1 ||
        b.size != HASH_SIZE || key.size != HASH_SIZE || m1.size != HASH_SIZE || m2.size != HASH_SIZE)
        fail("exchange has a wrong size");
}

static void prepare_group(void) {
    unsigned char padded[MAX_SIZE] = {0}, k[HASH_SIZE], hash[HASH_SIZE];
    padded[n.size - 1] = g.data[0];
    SHA256_CTX c;
    SHA256_Init(&c);
    SHA256_Update(&c, n.data, n.size);
    SHA256_Update(&c, padded, n.size);
    SHA256_Final(k, &c);
    prepare(n.size, n.data, g.data, k);

    SHA256(n.data, n.size, label);
    SHA256(g.data, 1, hash);
    for (size_t i = 0; i < HASH_SIZE; i++)
        label[i] ^= hash[i];
}

static unsigned char got_public[MAX_SIZE], got_key[HASH_SIZE], got_m1[HASH_SIZE], got_m2[HASH_SIZE];

/* step1 makes B. */
static void step1(void) { server_public(got_public, v.data, b.data); }

/* step2 makes u, S, K, M1 and M2, and checks M1. */
static void step2(void) {
    unsigned char u[HASH_SIZE], s[MAX_SIZE], hash[HASH_SIZE];
    SHA256_CTX c;
    SHA256_Init(&c);
    SHA256_Update(&c, a_public.data, n.size);
    SHA256_Update(&c, b_public.data, n.size);
    SHA256_Final(u, &c);

    if (!server_secret(s, a_public.data, v.data, u, b.data))
        fail("A is refused");
    SHA256(s, n.size, got_key);
    OPENSSL_cleanse(s, n.size);

    SHA256(identity.data, identity.size, hash);
    SHA256_Init(&c);
    SHA256_Update(&c, label, HASH_SIZE);
    SHA256_Update(&c, hash, HASH_SIZE);
    SHA256_Update(&c, salt.data, salt.size);
    SHA256_Update(&c, a_public.data, n.size);
    SHA256_Update(&c, b_public.data, n.size);
    SHA256_Update(&c, got_key, HASH_SIZE);
    SHA256_Final(got_m1, &c);
    if (CRYPTO_memcmp(got_m1, m1.data, HASH_SIZE) != 0)
        fail("another M1");

    SHA256_Init(&c);
    SHA256_Update(&c, a_public.data, n.size);
    SHA256_Update(&c, got_m1, HASH_SIZE);
    SHA256_Update(&c, got_key, HASH_SIZE);
    SHA256_Final(got_m2, &c);
}

static void verify(void) {
    step1();
    if (memcmp(got_public, b_public.data, n.size) != 0)
        fail("another B");
    step2();
    if (memcmp(got_key, key.data, HASH_SIZE) != 0)
        fail("another K");
    if (memcmp(got_m2, m2.data, HASH_SIZE) != 0)
        fail("another M2");
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* measure repeats a step for at least the time of a batch, and prints each batch. */
static void measure(const char *name, const char *group, void (*step)(void), int batches, double batch) {
    for (int i = 0; i < batches; i++) {
        long count = 0;
        double start = now(), elapsed;
        do {
            step();
            count++;
            elapsed = now() - start;
        } while (elapsed < batch);
        printf("%s/%s\t%ld\t%.1f ns/op\n", name, group, count, elapsed / (double)count);
    }
}

int main(int argc, char **argv) {
    if (argc == 1) {
        puts(library_version());
        return 0;
    }
    if (argc != 5)
        fail("EXCHANGE GROUP BATCHES MS are needed");
    read_exchange(argv[1]);
    prepare_group();
    verify();
    int batches = atoi(argv[3]);
    double batch = 1e6 * atof(argv[4]);
    measure("BenchmarkServerStep1", argv[2], step1, batches, batch);
    measure("BenchmarkServerStep2", argv[2], step2, batches, batch);
    verify();
    return 0;
}
