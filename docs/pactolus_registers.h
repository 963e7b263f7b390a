/* Register map of the Pactolus accelerator. Written by `pactolus docs`; do not edit. */
#ifndef PACTOLUS_REGISTERS_H
#define PACTOLUS_REGISTERS_H

#define PACTOLUS_ID_VALUE 0x54434150u
#define PACTOLUS_FORMAT_VERSION 1u
#define PACTOLUS_MAP_VERSION 1u

/* The characters PACT, the first in the lowest byte. */
#define PACTOLUS_ID_OFFSET 0x000u

/* Versions of what a driver relies on. */
#define PACTOLUS_VERSION_OFFSET 0x004u
#define PACTOLUS_VERSION_FORMAT_SHIFT 0u
#define PACTOLUS_VERSION_FORMAT_MASK 0x0000FFFFu
#define PACTOLUS_VERSION_MAP_SHIFT 16u
#define PACTOLUS_VERSION_MAP_MASK 0xFFFF0000u

/* Of the configuration; a program's header must have the same. */
#define PACTOLUS_FINGERPRINT_OFFSET 0x008u

/* Output channels computed in parallel. Configuration. */
#define PACTOLUS_ROWS_OFFSET 0x00Cu

/* Digits of an activation word. Configuration. */
#define PACTOLUS_LANES_OFFSET 0x010u

/* Width of a digit. Configuration. */
#define PACTOLUS_DIGIT_BITS_OFFSET 0x014u

/* Width of the accumulators. Configuration. */
#define PACTOLUS_ACC_BITS_OFFSET 0x018u

/* Accumulators requantized per cycle. Configuration. */
#define PACTOLUS_REQUANT_LANES_OFFSET 0x01Cu

/* Largest width of an output code. Configuration. */
#define PACTOLUS_MAX_OUTPUT_BITS_OFFSET 0x020u

/* Weight words of a row in each half of its bank. Configuration. */
#define PACTOLUS_WEIGHT_DEPTH_OFFSET 0x024u

/* Words of the activation buffer. Configuration. */
#define PACTOLUS_ACTIVATION_DEPTH_OFFSET 0x028u

/* Width of the streams' tdata. Configuration. */
#define PACTOLUS_STREAM_BITS_OFFSET 0x02Cu

/* All fields are 0 after reset; a soft reset does not change them. */
#define PACTOLUS_CONTROL_OFFSET 0x040u
#define PACTOLUS_CONTROL_ENABLE_SHIFT 0u
#define PACTOLUS_CONTROL_ENABLE_MASK 0x00000001u
#define PACTOLUS_CONTROL_SOFT_RESET_SHIFT 1u
#define PACTOLUS_CONTROL_SOFT_RESET_MASK 0x00000002u
#define PACTOLUS_CONTROL_DONE_INTERRUPT_SHIFT 8u
#define PACTOLUS_CONTROL_DONE_INTERRUPT_MASK 0x00000100u
#define PACTOLUS_CONTROL_ERROR_INTERRUPT_SHIFT 9u
#define PACTOLUS_CONTROL_ERROR_INTERRUPT_MASK 0x00000200u

/* What the accelerator is doing. */
#define PACTOLUS_STATUS_OFFSET 0x044u
#define PACTOLUS_STATUS_BUSY_SHIFT 0u
#define PACTOLUS_STATUS_BUSY_MASK 0x00000001u
#define PACTOLUS_STATUS_DONE_SHIFT 1u
#define PACTOLUS_STATUS_DONE_MASK 0x00000002u
#define PACTOLUS_STATUS_ERROR_SHIFT 2u
#define PACTOLUS_STATUS_ERROR_MASK 0x00000004u

/* The first error since reset; 0 where there was none. A soft reset clears it. */
#define PACTOLUS_ERROR_OFFSET 0x048u
#define PACTOLUS_ERROR_CODE_SHIFT 0u
#define PACTOLUS_ERROR_CODE_MASK 0x000000FFu
#define PACTOLUS_ERROR_COMMAND_SHIFT 8u
#define PACTOLUS_ERROR_COMMAND_MASK 0xFFFFFF00u

/* Programs finished since reset, modulo 2^32. */
#define PACTOLUS_PROGRAMS_OFFSET 0x04Cu

/* Cycles from the one in which the program's first word was accepted to the one in which its last output word so far was, both counted; 0 before there is an output word. Reading it keeps the high half for CYCLES_HIGH. */
#define PACTOLUS_CYCLES_LOW_OFFSET 0x050u

/* High half of CYCLES, as it was when CYCLES_LOW was read. */
#define PACTOLUS_CYCLES_HIGH_OFFSET 0x054u

/* Cycles in which the array took a beat. Reading it keeps the high half for BEATS_HIGH. */
#define PACTOLUS_BEATS_LOW_OFFSET 0x058u

/* High half of BEATS, as it was when BEATS_LOW was read. */
#define PACTOLUS_BEATS_HIGH_OFFSET 0x05Cu

/* Cycles in which a command could have begun, but none was there. */
#define PACTOLUS_PROGRAM_WAITS_OFFSET 0x060u

/* Cycles in which a LOAD waited for the input stream. */
#define PACTOLUS_INPUT_WAITS_OFFSET 0x064u

/* Cycles in which a STORE waited for the output stream. */
#define PACTOLUS_OUTPUT_WAITS_OFFSET 0x068u

/* Entries noted in LAYER_CYCLES, at most 64; later marks are not noted. */
#define PACTOLUS_LAYERS_OFFSET 0x06Cu

/* Entry n is the cycle in which the program's marked command n finished, counted as CYCLES, modulo 2^32; 0 where none is noted. */
#define PACTOLUS_LAYER_CYCLES_OFFSET 0x400u
#define PACTOLUS_LAYER_CYCLES_COUNT 64u

/* ERROR.code */
#define PACTOLUS_CODE_NONE 0u
#define PACTOLUS_CODE_MAGIC 1u
#define PACTOLUS_CODE_VERSION 2u
#define PACTOLUS_CODE_FINGERPRINT 3u
#define PACTOLUS_CODE_OPCODE 4u
#define PACTOLUS_CODE_FIELD 5u
#define PACTOLUS_CODE_WEIGHTS 6u
#define PACTOLUS_CODE_ADDRESS 7u
#define PACTOLUS_CODE_PROGRAM_SHORT 8u
#define PACTOLUS_CODE_PROGRAM_LONG 9u
#define PACTOLUS_CODE_INPUT_SHORT 10u
#define PACTOLUS_CODE_INPUT_LONG 11u

#endif
