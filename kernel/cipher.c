// SPDX-License-Identifier: GPL-2.0
/*
 * Frames as PROTOCOL.md section 2 has them, in place, one AES-256-GCM key and
 * counter per direction.
 *
 * A frame lies in one buffer as header | text | tag. The header is the
 * associated data and stands directly in front of the text, so one scatterlist
 * over the whole frame is source and destination at once.
 *
 * No copy of the key is kept: it lives in the crypto object alone, which wipes
 * itself when it is freed or given its next key.
 *
 * gcm(aes) may call itself asynchronous and yet complete at once; both are
 * handled, by waiting. Callers may sleep.
 */
#include <linux/mm.h>
#include <linux/scatterlist.h>

#include "internal.h"

#ifndef STCP_TEST_NULL_CIPHER
/* A frame can start anywhere in a page, so one page more than its size. */
#define STCP_SG_MAX	(STCP_MAX_FRAME / PAGE_SIZE + 1)

static void stcp_sg_frame(struct scatterlist *sg, u8 *frame, u32 len)
{
	u32 part;

	if (!is_vmalloc_addr(frame)) {
		sg_init_one(sg, frame, len);
		return;
	}
	sg_init_table(sg, STCP_SG_MAX);
	for (; len; frame += part, len -= part, sg++) {
		part = min_t(u32, len, PAGE_SIZE - offset_in_page(frame));
		sg_set_page(sg, vmalloc_to_page(frame), part,
			    offset_in_page(frame));
		if (part == len)
			sg_mark_end(sg);
	}
}

static void stcp_nonce(u8 *nonce, u64 n)
{
	memset(nonce, 0, STCP_NONCE_LEN - sizeof(n));
	put_unaligned_be64(n, nonce + STCP_NONCE_LEN - sizeof(n));
}

static int stcp_encrypt(struct stcp_cipher *c, u8 *frame, u32 ad, u32 len, u64 n)
{
	struct scatterlist sg[STCP_SG_MAX];
	u8 nonce[STCP_NONCE_LEN];

	stcp_sg_frame(sg, frame, ad + len + STCP_TAG_LEN);
	stcp_nonce(nonce, n);
	aead_request_set_ad(c->req, ad);
	aead_request_set_crypt(c->req, sg, sg, len, nonce);
	return crypto_wait_req(crypto_aead_encrypt(c->req), &c->wait);
}

static int stcp_decrypt(struct stcp_cipher *c, u8 *frame, u32 len)
{
	struct scatterlist sg[STCP_SG_MAX];
	u8 nonce[STCP_NONCE_LEN];

	stcp_sg_frame(sg, frame, STCP_HEADER_LEN + len);
	stcp_nonce(nonce, c->n);
	aead_request_set_ad(c->req, STCP_HEADER_LEN);
	aead_request_set_crypt(c->req, sg, sg, len, nonce);
	return crypto_wait_req(crypto_aead_decrypt(c->req), &c->wait);
}
#else
static int stcp_encrypt(struct stcp_cipher *c, u8 *frame, u32 ad, u32 len, u64 n)
{
	memset(frame + ad + len, 0, STCP_TAG_LEN);
	return 0;
}

static int stcp_decrypt(struct stcp_cipher *c, u8 *frame, u32 len)
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
	u8 *scratch;
	int err;

	if (c->n == STCP_REKEY_NONCE)
		return -EKEYEXPIRED;
	if (!c->n || c->n % STCP_REKEY_INTERVAL)
		return 0;
	scratch = kzalloc(STCP_KEY_LEN + STCP_TAG_LEN, GFP_KERNEL);
	if (!scratch)
		return -ENOMEM;
	err = stcp_encrypt(c, scratch, 0, STCP_KEY_LEN, STCP_REKEY_NONCE);
	if (!err)
		err = crypto_aead_setkey(c->tfm, scratch, STCP_KEY_LEN);
	kfree_sensitive(scratch);
	return err;
}

int stcp_cipher_init(struct stcp_cipher *c, const u8 *key, u64 n)
{
	int err;

	c->n = n;
	c->tfm = crypto_alloc_aead("gcm(aes)", 0, 0);
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
	c->req = aead_request_alloc(c->tfm, GFP_KERNEL);
	if (!c->req)
		return -ENOMEM;
	crypto_init_wait(&c->wait);
	aead_request_set_callback(c->req, CRYPTO_TFM_REQ_MAY_BACKLOG |
				  CRYPTO_TFM_REQ_MAY_SLEEP,
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
int stcp_cipher_seal(struct stcp_cipher *c, u8 *frame, u8 type, u32 len)
{
	int err = stcp_cipher_advance(c);

	if (err)
		return err;
	frame[0] = type;
	frame[1] = 0;
	put_unaligned_be16(len + STCP_TAG_LEN, frame + 2);
	err = stcp_encrypt(c, frame, STCP_HEADER_LEN, len, c->n);
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
int stcp_cipher_open(struct stcp_cipher *c, u8 *frame, u32 len)
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
