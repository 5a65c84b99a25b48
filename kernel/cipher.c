// SPDX-License-Identifier: GPL-2.0
/*
 * Frames as PROTOCOL.md section 2 has them, in place, one AES-256-GCM key and
 * counter per direction.
 *
 * A frame lies at the start of a buffer as header | text | tag. The header is
 * the associated data and stands directly in front of the text, so one
 * scatterlist over the whole frame is source and destination at once.
 *
 * No copy of the key is kept: it lives in the crypto object alone, which wipes
 * itself when it is freed or given its next key.
 *
 * Nothing here waits for memory after stcp_cipher_init(). Only the next key may need
 * memory: a cipher that is a template over other ciphers allocates in setkey().
 * The ciphers that the kernel computes on the CPU may call themselves asynchronous,
 * yet they complete at once in a work item. Ciphers of accelerators, which complete
 * later, are not asked for (STCP_NO_OFFLOAD).
 */
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>

#include "internal.h"

/* Accelerators set at least one of these flags. */
#define STCP_NO_OFFLOAD	(CRYPTO_ALG_KERN_DRIVER_ONLY | CRYPTO_ALG_NEED_FALLBACK | \
			 CRYPTO_ALG_ALLOCATES_MEMORY)

static void stcp_nonce(struct stcp_cipher *c, u64 n)
{
	memset(c->nonce, 0, STCP_NONCE_LEN - sizeof(n));
	put_unaligned_be64(n, c->nonce + STCP_NONCE_LEN - sizeof(n));
}

/* The key after the present one. */
static int stcp_cipher_next_key(struct stcp_cipher *c)
{
	struct scatterlist sg;
	unsigned int flags;
	int err;

	memset(c->scratch, 0, sizeof(c->scratch));
	sg_init_one(&sg, c->scratch, sizeof(c->scratch));
	stcp_nonce(c, STCP_REKEY_NONCE);
	aead_request_set_ad(c->req, 0);
	aead_request_set_crypt(c->req, &sg, &sg, STCP_KEY_LEN, c->nonce);
	err = crypto_wait_req(crypto_aead_encrypt(c->req), &c->wait);
	if (!err) {
		/* A carrier serves all users: it uses memory reserves and never reclaims. */
		flags = current->flags & PF_WQ_WORKER ? memalloc_noreclaim_save() : 0;
		err = crypto_aead_setkey(c->tfm, c->scratch, STCP_KEY_LEN);
		if (current->flags & PF_WQ_WORKER)
			memalloc_noreclaim_restore(flags);
	}
	memzero_explicit(c->scratch, sizeof(c->scratch));
	return err;
}

#ifndef STCP_TEST_NULL_CIPHER
static int stcp_encrypt(struct stcp_cipher *c, struct stcp_buffer *frame, u32 len)
{
	struct scatterlist sg[STCP_BUFFER_PAGES];

	stcp_buffer_sg(frame, sg, STCP_FRAME_OVERHEAD + len);
	stcp_nonce(c, c->n);
	aead_request_set_ad(c->req, STCP_HEADER_LEN);
	aead_request_set_crypt(c->req, sg, sg, len, c->nonce);
	return crypto_wait_req(crypto_aead_encrypt(c->req), &c->wait);
}

static int stcp_decrypt(struct stcp_cipher *c, struct stcp_buffer *frame, u32 len)
{
	struct scatterlist sg[STCP_BUFFER_PAGES];

	stcp_buffer_sg(frame, sg, STCP_HEADER_LEN + len);
	stcp_nonce(c, c->n);
	aead_request_set_ad(c->req, STCP_HEADER_LEN);
	aead_request_set_crypt(c->req, sg, sg, len, c->nonce);
	return crypto_wait_req(crypto_aead_decrypt(c->req), &c->wait);
}
#else
static int stcp_encrypt(struct stcp_cipher *c, struct stcp_buffer *frame, u32 len)
{
	static const u8 tag[STCP_TAG_LEN];

	stcp_buffer_write(frame, STCP_HEADER_LEN + len, tag, sizeof(tag));
	return 0;
}

static int stcp_decrypt(struct stcp_cipher *c, struct stcp_buffer *frame, u32 len)
{
	return 0;
}
#endif

/*
 * Make @c ready for frame n: the reserved nonce ends a direction, a multiple
 * of the interval changes the key.
 */
static int stcp_cipher_advance(struct stcp_cipher *c)
{
	if (c->n == STCP_REKEY_NONCE)
		return -EKEYEXPIRED;
	if (!c->n || c->n % STCP_REKEY_INTERVAL)
		return 0;
	return stcp_cipher_next_key(c);
}

/* Does a driver hand requests to a queue? Its name has all templates that it is made of. */
static bool stcp_driver_queues(struct crypto_aead *tfm)
{
	const char *name = crypto_tfm_alg_driver_name(crypto_aead_tfm(tfm));

	return strstr(name, "pcrypt(") || strstr(name, "cryptd(");
}

/*
 * AES-GCM that the CPU computes at once. Any user may have the kernel make drivers out of
 * templates (AF_ALG), which the kernel prefers from then on: each "pcrypt()" around a driver
 * adds to its priority, and inside may be any other, as in
 * "pcrypt(gcm_base(cryptd(ctr(aes-generic)),ghash-generic))". So what is inside is the user's
 * choice too. In their place comes the best driver that nobody has made out of templates.
 * Where there is none, it is the best one that is synchronous, for those that queue are not.
 */
static struct crypto_aead *stcp_alloc_gcm(void)
{
	struct crypto_aead *tfm = crypto_alloc_aead("gcm(aes)", 0, STCP_NO_OFFLOAD);
	u32 mask = STCP_NO_OFFLOAD | CRYPTO_ALG_INSTANCE;

	if (IS_ERR(tfm) || !stcp_driver_queues(tfm))
		return tfm;
	crypto_free_aead(tfm);
	/* Asked first: where there is none, newer kernels would look for it for ever. */
	if (!crypto_has_alg("gcm(aes)", CRYPTO_ALG_TYPE_AEAD,
			    CRYPTO_ALG_TYPE_MASK | CRYPTO_NOLOAD | mask))
		mask = STCP_NO_OFFLOAD | CRYPTO_ALG_ASYNC;
	return crypto_alloc_aead("gcm(aes)", 0, mask);
}

int stcp_cipher_init(struct stcp_cipher *c, const u8 *key, u64 n)
{
	int err;

	c->n = n;
	c->tfm = stcp_alloc_gcm();
	if (IS_ERR(c->tfm)) {
		err = PTR_ERR(c->tfm);
		c->tfm = NULL;
		return err;
	}
	err = crypto_aead_setkey(c->tfm, key, STCP_KEY_LEN);
	if (!err)
		err = crypto_aead_setauthsize(c->tfm, STCP_TAG_LEN);
	if (err)
		return err;
	c->req = aead_request_alloc(c->tfm, GFP_KERNEL_ACCOUNT);
	if (!c->req)
		return -ENOMEM;
	crypto_init_wait(&c->wait);
	aead_request_set_callback(c->req, CRYPTO_TFM_REQ_MAY_BACKLOG,
				  crypto_req_done, &c->wait);
	return 0;
}

/* Takes any state that stcp_cipher_init() can leave, and a zeroed object. */
void stcp_cipher_destroy(struct stcp_cipher *c)
{
	if (c->req)
		aead_request_free(c->req);
	if (c->tfm)
		crypto_free_aead(c->tfm);
	c->req = NULL;
	c->tfm = NULL;
}

/**
 * stcp_cipher_seal() - make a frame of the text behind the room for its header
 * @c: the direction's cipher
 * @frame: room for the header, @len bytes of text, room for the tag
 * @type: enum stcp_frame_type
 * @len: bytes of text, at most STCP_MAX_PLAINTEXT
 *
 * Return: 0, or a negative errno after which the direction cannot go on.
 */
int stcp_cipher_seal(struct stcp_cipher *c, struct stcp_buffer *frame, u8 type,
		     u32 len)
{
	u8 header[STCP_HEADER_LEN] = { type };
	int err = stcp_cipher_advance(c);

	if (err)
		return err;
	put_unaligned_be16(len + STCP_TAG_LEN, header + 2);
	stcp_buffer_write(frame, 0, header, sizeof(header));
	err = stcp_encrypt(c, frame, len);
	if (!err)
		WRITE_ONCE(c->n, c->n + 1);
	return err;
}

/**
 * stcp_cipher_open() - authenticate a frame and decrypt its text in place
 * @c: the direction's cipher
 * @frame: the whole frame
 * @len: the length in its header, already checked
 *
 * Return: 0, -EBADMSG for a frame that is not authentic, or another negative
 * errno. The direction cannot go on after any of them.
 */
int stcp_cipher_open(struct stcp_cipher *c, struct stcp_buffer *frame, u32 len)
{
	int err = stcp_cipher_advance(c);

	if (err)
		return err;
	err = stcp_decrypt(c, frame, len);
	if (!err)
		WRITE_ONCE(c->n, c->n + 1);
	return err;
}

/* Whose fault a failure of stcp_cipher_seal() or _open() is. */
enum stcp_end stcp_cipher_blame(int err)
{
	/* Not authentic, or out of numbers: as the Python engine names it. */
	if (err == -EBADMSG || err == -EKEYEXPIRED)
		return STCP_END_BAD_FRAME;
	return STCP_END_INTERNAL_ERROR;
}
