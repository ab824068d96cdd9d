/*
 * OpenSSL: constant-time exponentiation over a Montgomery context that is made
 * once. Neither the low-level SRP functions, which know SHA-1 only, nor a
 * table of powers of g.
 */
#include <openssl/bn.h>
#include <openssl/crypto.h>

#include "baseline.h"

static int size;
static BN_CTX *ctx;
static BN_MONT_CTX *mont;
static BIGNUM *n, *n_minus_1, *g, *k; /* k in Montgomery form, so that k*v is one product */
static BIGNUM *v, *a, *b, *u, *x, *y;

static void must(int ok) {
    if (!ok)
        fail("arithmetic failed");
}

const char *library_version(void) { return OpenSSL_version(OPENSSL_VERSION); }

void prepare(size_t bytes, const unsigned char *n_bytes, const unsigned char *g_bytes, const unsigned char *k_bytes) {
    size = (int)bytes;
    ctx = BN_CTX_new();
    mont = BN_MONT_CTX_new();
    n = BN_bin2bn(n_bytes, size, NULL);
    n_minus_1 = BN_dup(n);
    g = BN_bin2bn(g_bytes, 1, NULL);
    k = BN_bin2bn(k_bytes, HASH_SIZE, NULL);
    must(ctx && mont && n && n_minus_1 && g && k);
    must(BN_sub_word(n_minus_1, 1) && BN_MONT_CTX_set(mont, n, ctx) && BN_to_montgomery(k, k, mont, ctx));
    BIGNUM **values[] = {&v, &a, &b, &u, &x, &y};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        must((*values[i] = BN_new()) != NULL);
    BN_set_flags(v, BN_FLG_CONSTTIME);
    BN_set_flags(b, BN_FLG_CONSTTIME);
    BN_set_flags(u, BN_FLG_CONSTTIME);
}

void server_public(unsigned char *b_public, const unsigned char *v_bytes, const unsigned char *b_bytes) {
    must(BN_bin2bn(v_bytes, size, v) && BN_bin2bn(b_bytes, HASH_SIZE, b));
    must(BN_mod_mul_montgomery(x, k, v, mont, ctx));
    must(BN_mod_exp_mont_consttime(y, g, b, n, ctx, mont));
    must(BN_mod_add_quick(x, x, y, n));
    must(BN_bn2binpad(x, b_public, size) == size);
}

int server_secret(unsigned char *s, const unsigned char *a_bytes, const unsigned char *v_bytes,
                  const unsigned char *u_bytes, const unsigned char *b_bytes) {
    must(BN_bin2bn(a_bytes, size, a) && BN_bin2bn(v_bytes, size, v));
    must(BN_bin2bn(u_bytes, HASH_SIZE, u) && BN_bin2bn(b_bytes, HASH_SIZE, b));
    if (BN_is_zero(a) || BN_is_one(a) || BN_cmp(a, n_minus_1) >= 0)
        return 0;
    must(BN_mod_exp_mont_consttime(x, v, u, n, ctx, mont));
    must(BN_to_montgomery(a, a, mont, ctx) && BN_mod_mul_montgomery(x, x, a, mont, ctx));
    must(BN_mod_exp_mont_consttime(y, x, b, n, ctx, mont));
    must(BN_bn2binpad(y, s, size) == size);
    return 1;
}
