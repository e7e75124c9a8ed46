// C entry points of libwarpgrid_evm that trace. A translation unit of its own: it instantiates the
// interpreter once more.
#include "worker/evm/native/base.hpp"
#include "worker/evm/native/session.hpp"
#include "worker/evm/native/tracer.hpp"

using namespace warpgrid;
using namespace warpgrid::evm;

// A stream of at most `bytes_max` bytes for what `wishes` (TraceWish) names.
WG_EXPORT TraceStream* warpgrid_evm_trace_create(u32 wishes, u64 bytes_max) {
    return std::make_unique<TraceStream>(wishes, bytes_max).release();
}
WG_EXPORT void warpgrid_evm_trace_destroy(TraceStream* stream) { delete stream; }

// The records so far; 0 when something did not fit any more.
WG_EXPORT u32 warpgrid_evm_trace_view(const TraceStream* stream, const u8** bytes, u64* size) {
    *bytes = stream->bytes().data();
    *size = stream->size();
    return !stream->full();
}

// Serial mode, traced: runs row `row` of a block and commits it. 0 when it needs the host or a larger class of arenas;
// then nothing is committed, and the stream is as it was. The base's codes are decoded an instruction a block.
WG_EXPORT u32 warpgrid_evm_trace_row(Session* session, Base* base, u32 accounts_complete, const Transactions* batch,
                                     u64 row, BlockEnvironment* block, Result* results, TraceStream* stream,
                                     Answer answer) {
    World world = base->world_view(accounts_complete);
    HostAnswers answers = {*base, world, answer};
    Worker& worker = *session->workers[0];
    TracedMachine m;
    m.state.context = {&world, batch, &worker.sizes, &worker.layout};
    m.state.asker = answers.asker();
    m.block = block;
    m.granularity = Granularity::Instruction;
    TracedRegisters r;
    const Rejection rejection = open_machine(m, r, row, {worker.lanes.base()}, worker.region.base());
    const u64 before = stream->size();
    if (rejection == Rejection::None && m.state.fault == Halt::None) Tracer(*stream).run(m, r);
    const Outputs outputs = {results, session->output.base(), &session->used, session->output.bytes()};
    write_result(m, r, rejection, outputs);
    if (base->commit_row(results[row], session->output.base(), *batch, row, *block)) return 1;
    stream->shrink(before);
    return 0;
}

// Sizes of the records, in the order of worker/evm/trace_stream.py.
WG_EXPORT void warpgrid_evm_trace_layout(u64* sizes) {
    const u64 all[] = {sizeof(TraceHeader), sizeof(TraceInstruction), sizeof(TraceEnter), sizeof(TraceExit),
                       sizeof(TraceLog)};
    std::memcpy(sizes, all, sizeof(all));
}
