/* Attributes of Python objects: find their offsets, read and write them, and call methods. */
#include "lane.h"

PyObject *s_now, *s_queue, *s_encrypt_into, *s_decrypt_into, *s_up_read, *s_down_failed, *s_end_of_wire, *s_open_frames;
PyObject *s_plain_failed, *s_wire_broke, *s_sent_short, *s_delivered_short, *s_fail;

static const struct {
	PyObject **at;
	const char *name;
} names[] = {
	{ &s_now, "now" },
	{ &s_queue, "_queue" },
	{ &s_encrypt_into, "encrypt_into" },
	{ &s_decrypt_into, "decrypt_into" },
	{ &s_up_read, "_up_read" },
	{ &s_down_failed, "_down_failed" },
	{ &s_end_of_wire, "_end_of_wire" },
	{ &s_open_frames, "_open_frames" },
	{ &s_plain_failed, "_plain_failed" },
	{ &s_wire_broke, "_wire_broke" },
	{ &s_sent_short, "_sent_short" },
	{ &s_delivered_short, "_delivered_short" },
	{ &s_fail, "fail" },
};

/* Intern the names of attributes and methods. False with an exception. */
bool make_names(void)
{
	for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
		*names[i].at = PyUnicode_InternFromString(names[i].name);
		if (!*names[i].at)
			return false;
	}
	return true;
}

/* Store `value` in a slot and take over its reference. A NULL value, whose exception is set already, returns false. */
bool set_slot(PyObject *object, Py_ssize_t offset, PyObject *value)
{
	PyObject **slot = (PyObject **)((char *)object + offset);
	PyObject *old = *slot;

	if (!value)
		return false;
	*slot = value;
	Py_XDECREF(old);
	return true;
}

bool set_flag(PyObject *object, Py_ssize_t offset, bool flag)
{
	return set_slot(object, offset, Py_NewRef(flag ? Py_True : Py_False));
}

bool set_number(PyObject *object, Py_ssize_t offset, uint64_t number)
{
	return set_slot(object, offset, PyLong_FromUnsignedLongLong(number));
}

bool add_to_slot(PyObject *object, Py_ssize_t offset, Py_ssize_t amount)
{
	uint64_t number = PyLong_AsUnsignedLongLong(get_slot(object, offset));

	return !PyErr_Occurred() && set_number(object, offset, number + (uint64_t)amount);
}

/* Send the kept writes, then call a method of a Duplex with up to three arguments. Takes over the references to the arguments. */
bool call(Lane *lane, PyObject *duplex, PyObject *name, PyObject *a, PyObject *b, PyObject *c)
{
	PyObject *args[] = { duplex, a, b, c };
	size_t count = 1 + (a != NULL) + (b != NULL) + (c != NULL);
	PyObject *done = NULL;

	lane->ran_python = true;
	if (!PyErr_Occurred() && send_kept_writes(lane)) /* NULL for an argument may be a failed allocation */
		done = PyObject_VectorcallMethod(name, args, count, NULL);
	Py_XDECREF(a);
	Py_XDECREF(b);
	Py_XDECREF(c);
	Py_XDECREF(done);
	return done != NULL;
}

/* Call a method of a Duplex with the OSError for a value of errno. */
bool call_with_errno(Lane *lane, PyObject *duplex, PyObject *name, int error)
{
	return call(lane, duplex, name, PyObject_CallFunction(PyExc_OSError, "is", error, strerror(error)), NULL, NULL);
}

/* Offset of a slot in instances of `type`, or -1 with an exception. */
static Py_ssize_t offset_of(PyTypeObject *type, const char *name)
{
	PyObject *slot = PyObject_GetAttrString((PyObject *)type, name);
	Py_ssize_t offset = -1;

	if (!slot)
		return -1;
	if (Py_TYPE(slot) == &PyMemberDescr_Type && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX)
		offset = ((PyMemberDescrObject *)slot)->d_member->offset;
	else
		PyErr_Format(PyExc_TypeError, "%s.%s is not a slot", type->tp_name, name);
	Py_DECREF(slot);
	return offset;
}

/* Find the offset of every slot that the fast path uses. False with an exception. */
bool find_slots(struct layout *at, PyTypeObject *duplex, PyTypeObject *direction)
{
	const struct {
		Py_ssize_t *at;
		PyTypeObject *type;
		const char *name;
	} slots[] = {
		{ &at->state, duplex, "_state" },
		{ &at->phase, duplex, "_phase" },
		{ &at->queued, duplex, "_queued" },
		{ &at->bulk_at, duplex, "_bulk_at" },
		{ &at->plain_ready, duplex, "_plain_ready" },
		{ &at->wire_ready, duplex, "_wire_ready" },
		{ &at->plain_to_end, duplex, "_plain_to_end" },
		{ &at->wire_to_end, duplex, "_wire_to_end" },
		{ &at->sent, duplex, "_sent" },
		{ &at->received, duplex, "_received" },
		{ &at->active, duplex, "_active" },
		{ &at->partial, duplex, "partial" },
		{ &at->plain_left, duplex, "plain_left" },
		{ &at->wire_left, duplex, "wire_left" },
		{ &at->sealer, duplex, "_sealer" },
		{ &at->opener, duplex, "_opener" },
		{ &at->n, direction, "_n" },
		{ &at->check_at, direction, "_check_at" },
		{ &at->aead, direction, "_aead" },
	};

	for (size_t i = 0; i < Py_ARRAY_LENGTH(slots); i++) {
		*slots[i].at = offset_of(slots[i].type, slots[i].name);
		if (*slots[i].at < 0)
			return false;
	}
	return true;
}
