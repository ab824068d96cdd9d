/*
 * GMP: mpz_powm_sec, which is constant time. The two products are reduced by
 * ordinary division, which is not, but costs nothing that could be noticed.
 */
#include <string.h>

#include <gmp.h>

#include "baseline.h"

static size_t size;
static mpz_t n, n_minus_1, g, k, v, a, b, u, x, y;

const char *library_version(void) {
    static char name[32] = "GMP ";
    if (name[4] == 0)
        strncat(name, gmp_version, sizeof name - 5);
    return name;
}

static void set(mpz_t z, const unsigned char *bytes, size_t count) { mpz_import(z, count, 1, 1, 1, 0, bytes); }

static void get(unsigned char *bytes, const mpz_t z) {
    size_t count = (mpz_sizeinbase(z, 2) + 7) / 8;
    memset(bytes, 0, size);
    mpz_export(bytes + size - count, NULL, 1, 1, 1, 0, z);
}

void prepare(size_t bytes, const unsigned char *n_bytes, const unsigned char *g_bytes, const unsigned char *k_bytes) {
    size = bytes;
    mpz_inits(n, n_minus_1, g, k, v, a, b, u, x, y, NULL);
    set(n, n_bytes, size);
    mpz_sub_ui(n_minus_1, n, 1);
    set(g, g_bytes, 1);
    set(k, k_bytes, HASH_SIZE);
}

void server_public(unsigned char *b_public, const unsigned char *v_bytes, const unsigned char *b_bytes) {
    set(v, v_bytes, size);
    set(b, b_bytes, HASH_SIZE);
    mpz_powm_sec(x, g, b, n);
    mpz_mul(y, k, v);
    mpz_add(x, x, y);
    mpz_tdiv_r(x, x, n);
    get(b_public, x);
}

int server_secret(unsigned char *s, const unsigned char *a_bytes, const unsigned char *v_bytes,
                  const unsigned char *u_bytes, const unsigned char *b_bytes) {
    set(a, a_bytes, size);
    set(v, v_bytes, size);
    set(u, u_bytes, HASH_SIZE);
    set(b, b_bytes, HASH_SIZE);
    if (mpz_cmp_ui(a, 1) <= 0 || mpz_cmp(a, n_minus_1) >= 0)
        return 0;
    mpz_powm_sec(x, v, u, n);
    mpz_mul(x, x, a);
    mpz_tdiv_r(x, x, n);
    mpz_powm_sec(y, x, b, n);
    get(s, y);
    return 1;
}
