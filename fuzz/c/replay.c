/* Runs the inputs of files: what libFuzzer does with file names, for a compiler without libFuzzer.
 *
 * A file holds inputs one after the other, each behind its length (u32, big-endian).
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *read_input(FILE *file, size_t *size)
{
	uint8_t head[4], *data;

	if (fread(head, 1, sizeof(head), file) != sizeof(head))
		return NULL;
	*size = (size_t)head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3];
	data = malloc(*size + 1); /* of its own, so that a read behind its end shows */
	if (data && fread(data, 1, *size, file) != *size) {
		free(data);
		return NULL;
	}
	return data;
}

int main(int count, char **names)
{
	int runs = 0;

	for (int i = 1; i < count; i++) {
		FILE *file = fopen(names[i], "rb");
		uint8_t *data;
		size_t size;

		if (!file) {
			perror(names[i]);
			return 2;
		}
		while ((data = read_input(file, &size))) {
			LLVMFuzzerTestOneInput(data, size);
			free(data);
			runs++;
		}
		fclose(file);
	}
	printf("%d inputs\n", runs);
	return 0;
}
