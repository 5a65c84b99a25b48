/* Batch small writes: one wake-up of the receiver then drains several messages.
 *
 * A send wakes the process that waits for it. If each message of a batch is sent right after its cipher call, the receiver wakes up,
 * serves one message and sleeps again. So small writes are kept here while a batch of events is served. They are sent when FEW are
 * kept, before a large write, at the end of the batch, and before any call of Python, which may send on the same connection or end it.
 */
#include "lane.h"

/* Whether a write of this connection is kept. */
bool has_kept(const Lane *lane, const PyObject *duplex)
{
	for (int i = 0; i < lane->kept; i++) {
		if (lane->later[i].duplex == duplex)
			return true;
	}
	return false;
}

/* Send every kept write, then report the failed and the short ones to Python, which may send on a connection or end it.
 * False with an exception. */
bool send_kept(Lane *lane)
{
	const struct later *later = lane->later; /* stays valid: steps that Python starts keep no writes */
	ssize_t done[FEW];
	int error[FEW], kept = lane->kept;
	bool fine = true;

	lane->kept = 0;
	for (int i = 0; i < kept; i++) {
		done[i] = alive(lane, later[i].duplex, later[i].to) ? transmit(later[i].to, later[i].bytes, later[i].size) :
								      (ssize_t)later[i].size;
		error[i] = errno;
	}
	for (int i = 0; i < kept; i++) {
		if (fine)
			fine = account(lane, later[i].duplex, later[i].wire, later[i].bytes, later[i].size, done[i], error[i]) ||
			       tell(lane, later[i].duplex);
		Py_DECREF(later[i].duplex);
	}
	return fine;
}

/* Keep a copy of a small write; send the others first if there is no room. False with an exception. */
bool keep(Lane *lane, PyObject *duplex, int to, bool wire, const uint8_t *from, size_t size)
{
	struct later *later;

	if (lane->kept == FEW && !send_kept(lane))
		return false;
	later = &lane->later[lane->kept++];
	later->duplex = Py_NewRef(duplex);
	later->to = to;
	later->wire = wire;
	later->size = size;
	memcpy(later->bytes, from, size);
	return true;
}
