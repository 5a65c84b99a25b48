/* Sockets, epoll, clock and cipher for the fuzzer of the fast path. */
#include "lane_harness.h"

struct epoll_event pending[2 * CONNECTIONS];
int pending_count;
PyTypeObject *aead_class;

struct leg_io *io_of(int fd)
{
	CHECK(fd >= FIRST_FD && fd < FIRST_FD + 2 * CONNECTIONS);
	return (fd - FIRST_FD) % 2 ? &all[(fd - FIRST_FD) / 2].wire : &all[(fd - FIRST_FD) / 2].plain;
}

struct connection *connection_of(PyObject *duplex)
{
	for (int i = 0; i < CONNECTIONS; i++) {
		if (all[i].duplex == duplex)
			return &all[i];
	}
	CHECK(!"a method of a known connection");
	return NULL;
}

ssize_t fuzz_recv(int fd, void *into, size_t room, int flags)
{
	struct leg_io *io = io_of(fd);
	size_t size = io->in_end - io->in_at;

	CHECK(!flags && room);
	if (io->error) {
		errno = io->error;
		return -1;
	}
	if (!size && io->eof)
		return 0;
	if (!size) {
		errno = EAGAIN;
		return -1;
	}
	size = size < room ? size : room;
	memcpy(into, io->in + io->in_at, size);
	io->in_at += size;
	return (ssize_t)size;
}

ssize_t fuzz_send(int fd, const void *from, size_t size, int flags)
{
	struct leg_io *io = io_of(fd);

	CHECK(flags == MSG_NOSIGNAL && size);
	if (io->error) {
		errno = EPIPE;
		return -1;
	}
	if (!io->room) {
		errno = EAGAIN;
		return -1;
	}
	size = size < io->room ? size : io->room;
	CHECK(io->out_end + size <= sizeof(io->out));
	memcpy(io->out + io->out_end, from, size);
	io->out_end += size;
	io->room -= size;
	return (ssize_t)size;
}

int fuzz_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	int count = pending_count;

	(void)epoll, (void)timeout;
	CHECK(count <= most);
	memcpy(events, pending, (size_t)count * sizeof(*events));
	pending_count = 0;
	return count;
}

int fuzz_sched_yield(void)
{
	return 0;
}

double now = 1000;

int fuzz_clock_gettime(clockid_t clock, struct timespec *t)
{
	(void)clock;
	now += 1e-4;
	t->tv_sec = (time_t)now;
	t->tv_nsec = (long)((now - (double)t->tv_sec) * 1e9);
	return 0;
}

/* -- the cipher, as an object ---- */

static bool get_views(PyObject *const *args, Py_ssize_t count, Py_buffer *views)
{
	static const int writable[] = { 0, 0, 0, 1 };

	CHECK(count == 4);
	for (int i = 0; i < 4; i++) {
		if (PyObject_GetBuffer(args[i], &views[i], writable[i] ? PyBUF_WRITABLE : PyBUF_SIMPLE))
			return false;
	}
	CHECK(views[0].len == TOY_NONCE && views[2].len == TOY_HEADER);
	return true;
}

static PyObject *encrypt_into(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	Py_buffer v[4];

	if (!get_views(args, count, v))
		return NULL;
	CHECK(v[3].len == v[1].len + TOY_TAG && v[1].len <= MAX_PLAINTEXT);
	memcpy(v[3].buf, v[1].buf, (size_t)v[1].len);
	toy_seal(((Aead *)self)->key, v[0].buf, v[2].buf, TOY_HEADER, v[3].buf, (size_t)v[1].len, (uint8_t *)v[3].buf + v[1].len);
	for (int i = 0; i < 4; i++)
		PyBuffer_Release(&v[i]);
	Py_RETURN_NONE;
}

static PyObject *decrypt_into(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	static uint8_t text[MAX_FRAME];
	Py_buffer v[4];
	bool fine;

	if (!get_views(args, count, v))
		return NULL;
	CHECK(v[1].len >= TOY_TAG && v[3].len == v[1].len - TOY_TAG && v[1].len <= MAX_LENGTH);
	memcpy(text, v[1].buf, (size_t)v[3].len);
	fine = toy_open(((Aead *)self)->key, v[0].buf, v[2].buf, TOY_HEADER, text, (size_t)v[3].len, (uint8_t *)v[1].buf + v[3].len);
	memcpy(v[3].buf, text, (size_t)v[3].len); /* also where the tag is wrong: then the content is undefined */
	for (int i = 0; i < 4; i++)
		PyBuffer_Release(&v[i]);
	if (fine)
		Py_RETURN_NONE;
	PyErr_SetString(PyExc_ValueError, "the tag is wrong");
	return NULL;
}

static PyMethodDef aead_methods[] = {
	{ "encrypt_into", (PyCFunction)(void (*)(void))encrypt_into, METH_FASTCALL, NULL },
	{ "decrypt_into", (PyCFunction)(void (*)(void))decrypt_into, METH_FASTCALL, NULL },
	{ NULL, NULL, 0, NULL },
};
static PyType_Slot aead_slots[] = { { Py_tp_methods, aead_methods }, { 0, NULL } };
PyType_Spec aead_spec = { "toy.Aead", sizeof(Aead), 0, Py_TPFLAGS_DEFAULT, aead_slots };

PyObject *new_aead(const uint8_t *key)
{
	Aead *aead = PyObject_New(Aead, aead_class);

	memcpy(aead->key, key, TOY_KEY);
	return (PyObject *)aead;
}

/* -- slots ---- */

uint64_t number(PyObject *object, Py_ssize_t at)
{
	return PyLong_AsUnsignedLongLong(get_slot(object, at));
}

bool is_true(PyObject *object, Py_ssize_t at)
{
	CHECK(PyBool_Check(get_slot(object, at)));
	return get_slot(object, at) == Py_True;
}

void set_direction(PyObject *direction, const struct toy_keys *k)
{
	uint64_t interval = 1 << 20, from = k->n ? k->n : 1, next = (from + interval - 1) / interval * interval;

	set_number(direction, lane->at.n, k->n);
	if (next < from)
		next = UINT64_MAX;
	set_number(direction, lane->at.check_at, next);
	set_slot(direction, lane->at.aead, new_aead(k->key));
}

/* The key and the number of a direction. */
struct toy_keys keys_of(PyObject *direction)
{
	struct toy_keys k;

	memcpy(k.key, ((Aead *)get_slot(direction, lane->at.aead))->key, TOY_KEY);
	k.n = number(direction, lane->at.n);
	return k;
}

void put_keys(PyObject *direction, const struct toy_keys *k)
{
	uint64_t check_at = number(direction, lane->at.check_at);

	set_number(direction, lane->at.n, k->n);
	if (k->n > check_at) { /* a frame was made behind a rekey */
		set_number(direction, lane->at.check_at, check_at > UINT64_MAX - (1 << 20) ? UINT64_MAX : check_at + (1 << 20));
		set_slot(direction, lane->at.aead, new_aead(k->key));
	}
}
