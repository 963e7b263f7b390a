// The accelerator between files: what the benches simulate. Python sets how many packets may go, and waits; the words
// of program.hex, input.hex and output.hex never pass through it. The registers are at the top module's ports.
// STREAM_BITS is the configuration's stream width.
module harness(clk, resetn, seed, program_allowed, program_stall, program_sent, input_allowed, input_stall, input_sent,
    output_stall, output_packets, output_words, output_faults, interrupt, s_axil_awaddr, s_axil_awvalid,
    s_axil_awready, s_axil_wdata, s_axil_wstrb, s_axil_wvalid, s_axil_wready, s_axil_bresp, s_axil_bvalid,
    s_axil_bready, s_axil_araddr, s_axil_arvalid, s_axil_arready, s_axil_rdata, s_axil_rresp, s_axil_rvalid,
    s_axil_rready);
  input clk, resetn;
  input [31:0] seed, program_allowed, input_allowed;
  input [7:0] program_stall, input_stall, output_stall;
  output [31:0] program_sent, input_sent, output_packets, output_words, output_faults;
  output interrupt;
  input [11:0] s_axil_awaddr, s_axil_araddr;
  input s_axil_awvalid, s_axil_wvalid, s_axil_bready, s_axil_arvalid, s_axil_rready;
  input [31:0] s_axil_wdata;
  input [3:0] s_axil_wstrb;
  output s_axil_awready, s_axil_wready, s_axil_bvalid, s_axil_arready, s_axil_rvalid;
  output [1:0] s_axil_bresp, s_axil_rresp;
  output [31:0] s_axil_rdata;

  wire program_tvalid, program_tready, program_tlast;
  wire input_tvalid, input_tready, input_tlast;
  wire output_tvalid, output_tready, output_tlast;
  wire [`STREAM_BITS-1:0] program_tdata, input_tdata, output_tdata;

  stream_source #(.BITS(`STREAM_BITS), .FILE("program.hex")) program_source(
    .clk(clk), .resetn(resetn), .seed(seed), .stall(program_stall), .allowed(program_allowed), .sent(program_sent),
    .tvalid(program_tvalid), .tready(program_tready), .tdata(program_tdata), .tlast(program_tlast));
  stream_source #(.BITS(`STREAM_BITS), .FILE("input.hex")) input_source(
    .clk(clk), .resetn(resetn), .seed(seed + 32'h9e3779b9), .stall(input_stall), .allowed(input_allowed),
    .sent(input_sent), .tvalid(input_tvalid), .tready(input_tready), .tdata(input_tdata), .tlast(input_tlast));
  stream_sink #(.BITS(`STREAM_BITS), .FILE("output.hex")) output_sink(
    .clk(clk), .resetn(resetn), .seed(seed), .stall(output_stall), .packets(output_packets), .words(output_words),
    .faults(output_faults), .tvalid(output_tvalid), .tready(output_tready), .tdata(output_tdata),
    .tlast(output_tlast));

  accelerator accelerator(
    .aclk(clk), .aresetn(resetn), .interrupt(interrupt),
    .s_axis_program_tvalid(program_tvalid), .s_axis_program_tready(program_tready),
    .s_axis_program_tdata(program_tdata), .s_axis_program_tlast(program_tlast),
    .s_axis_input_tvalid(input_tvalid), .s_axis_input_tready(input_tready), .s_axis_input_tdata(input_tdata),
    .s_axis_input_tlast(input_tlast),
    .m_axis_output_tvalid(output_tvalid), .m_axis_output_tready(output_tready), .m_axis_output_tdata(output_tdata),
    .m_axis_output_tlast(output_tlast),
    .s_axil_awaddr(s_axil_awaddr), .s_axil_awvalid(s_axil_awvalid), .s_axil_awready(s_axil_awready),
    .s_axil_wdata(s_axil_wdata), .s_axil_wstrb(s_axil_wstrb), .s_axil_wvalid(s_axil_wvalid),
    .s_axil_wready(s_axil_wready), .s_axil_bresp(s_axil_bresp), .s_axil_bvalid(s_axil_bvalid),
    .s_axil_bready(s_axil_bready), .s_axil_araddr(s_axil_araddr), .s_axil_arvalid(s_axil_arvalid),
    .s_axil_arready(s_axil_arready), .s_axil_rdata(s_axil_rdata), .s_axil_rresp(s_axil_rresp),
    .s_axil_rvalid(s_axil_rvalid), .s_axil_rready(s_axil_rready));

  initial
    if ($test$plusargs("wave")) begin
      $dumpfile("wave.vcd");
      $dumpvars(0, harness);
    end
endmodule
