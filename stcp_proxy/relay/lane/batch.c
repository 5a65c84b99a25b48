/* Small sends of one batch go out together.
 *
 * Whoever waits for a message is woken by its send. Where the messages of a batch are sent one by one, each between two turns of the
 * cipher, the other process wakes, serves one and sleeps again; where some leave at once, it finds them all. So while a batch is
 * served, what is small is kept here, and goes out when FEW have come, or something else is to happen: a large message, the end of
 * the batch, and above all any call of Python, which may send on the same connection, or end it.
 */
#include "lane.h"

bool has_kept(const Lane *lane, const PyObject *duplex)
{
	for (int i = 0; i < lane->kept; i++) {
		if (lane->later[i].duplex == duplex)
			return true;
	}
	return false;
}

/* All of them are sent before Python hears of any that did not go: it may end a connection, and send on it. */
bool send_kept(Lane *lane)
{
	const struct later *later = lane->later; /* nothing is kept meanwhile: Python's own steps keep nothing */
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
