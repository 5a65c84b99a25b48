/* A cipher for fuzzers: it has the shape of AES-256-GCM and is fast. It keeps nothing secret.
 *
 * The tag depends on key, nonce, header, ciphertext and its length, so a wrong number, a changed byte or a cut frame does not open.
 */
#ifndef TOY_CIPHER_H
#define TOY_CIPHER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { TOY_KEY = 32, TOY_NONCE = 12, TOY_TAG = 16 };

static inline uint64_t toy_mix(uint64_t state, uint64_t word)
{
	state = (state ^ word) * 0x9e3779b97f4a7c15ull;
	return state ^ state >> 29;
}

static inline uint64_t toy_mix_bytes(uint64_t state, const uint8_t *at, size_t size)
{
	uint64_t word;

	for (; size >= sizeof(word); at += sizeof(word), size -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		state = toy_mix(state, word);
	}
	for (word = size; size; size--)
		word = word << 8 | *at++;
	return toy_mix(state, word);
}

static inline void toy_crypt(uint64_t stream, uint8_t *text, size_t size)
{
	uint64_t word;
	size_t i = 0;

	for (; i + 8 <= size; i += 8) {
		memcpy(&word, text + i, 8);
		word ^= stream;
		memcpy(text + i, &word, 8);
	}
	for (; i < size; i++)
		text[i] ^= (uint8_t)(stream >> (i % 8 * 8));
}

static inline uint64_t toy_start(const uint8_t *key, const uint8_t *nonce, const uint8_t *header, size_t header_size)
{
	return toy_mix_bytes(toy_mix_bytes(toy_mix_bytes(1, key, TOY_KEY), nonce, TOY_NONCE), header, header_size);
}

static inline void toy_tag(uint64_t stream, const uint8_t *ciphertext, size_t size, uint8_t *tag)
{
	uint64_t state = toy_mix_bytes(stream, ciphertext, size), more = toy_mix(state, size);

	memcpy(tag, &state, 8);
	memcpy(tag + 8, &more, 8);
}

/* Encrypt `size` bytes in place. */
static inline void toy_seal(const uint8_t *key, const uint8_t *nonce, const uint8_t *header, size_t header_size, uint8_t *text, size_t size,
			    uint8_t *tag)
{
	uint64_t stream = toy_start(key, nonce, header, header_size);

	toy_crypt(stream, text, size);
	toy_tag(stream, text, size, tag);
}

/* Decrypt `size` bytes in place. False, with the bytes unchanged, if the tag is wrong. */
static inline bool toy_open(const uint8_t *key, const uint8_t *nonce, const uint8_t *header, size_t header_size, uint8_t *text, size_t size,
			    const uint8_t *tag)
{
	uint64_t stream = toy_start(key, nonce, header, header_size);
	uint8_t right[TOY_TAG];

	toy_tag(stream, text, size, right);
	if (memcmp(right, tag, TOY_TAG))
		return false;
	toy_crypt(stream, text, size);
	return true;
}

/* One direction of a peer: its key, and the number of its next frame. */
struct toy_keys {
	uint8_t key[TOY_KEY];
	uint64_t n;
};

static inline void toy_nonce(uint8_t *nonce, uint64_t n)
{
	memset(nonce, 0, TOY_NONCE);
	for (int i = TOY_NONCE - 1; n; i--, n >>= 8)
		nonce[i] = (uint8_t)n;
}

/* Get ready for frame `n`: a multiple of 2^20 changes the key. False if the last number is used. */
static inline bool toy_advance(struct toy_keys *k)
{
	uint8_t nonce[TOY_NONCE], next[TOY_KEY] = { 0 }, tag[TOY_TAG];

	if (k->n == UINT64_MAX)
		return false;
	if (k->n && !(k->n & ((1u << 20) - 1))) {
		toy_nonce(nonce, UINT64_MAX);
		toy_seal(k->key, nonce, NULL, 0, next, TOY_KEY, tag);
		memcpy(k->key, next, TOY_KEY);
	}
	return true;
}

enum { TOY_HEADER = 4, TOY_OVERHEAD = TOY_HEADER + TOY_TAG };

/* Make frame `n` of `size` bytes of text at `frame + TOY_HEADER`. False if no number is left. */
static inline bool toy_seal_frame(struct toy_keys *k, uint8_t *frame, uint8_t type, uint8_t reserved, size_t size)
{
	uint8_t nonce[TOY_NONCE];

	if (!toy_advance(k))
		return false;
	frame[0] = type;
	frame[1] = reserved;
	frame[2] = (uint8_t)((size + TOY_TAG) >> 8);
	frame[3] = (uint8_t)(size + TOY_TAG);
	toy_nonce(nonce, k->n++);
	toy_seal(k->key, nonce, frame, TOY_HEADER, frame + TOY_HEADER, size, frame + TOY_HEADER + size);
	return true;
}

/* Open frame `n` in place; `size` is that of its text. */
static inline bool toy_open_frame(struct toy_keys *k, uint8_t *frame, size_t size)
{
	uint8_t nonce[TOY_NONCE];

	if (!toy_advance(k))
		return false;
	toy_nonce(nonce, k->n);
	if (!toy_open(k->key, nonce, frame, TOY_HEADER, frame + TOY_HEADER, size, frame + TOY_HEADER + size))
		return false;
	k->n++;
	return true;
}

#endif
