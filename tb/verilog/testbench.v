// A testbench in plain Verilog, without Python: runs the program of a folder, once a frame, and compares every output
// word.
//
// The simulation is started in a folder that `pactolus program NETWORK --output FOLDER` wrote: program.hex, input.hex
// and expected.hex. accelerator.v is what `pactolus verilog` writes; STREAM_BITS is in the
// folder's manifest. CONTROL is the register's offset in the register map.
//
//     $ iverilog -g2005 -DSTREAM_BITS=64 -o sim accelerator.v streams.v testbench.v
//     $ (cd FOLDER && vvp ../sim)
//
//     $ verilator --binary --timing -Wno-fatal -DSTREAM_BITS=64 --top testbench accelerator.v streams.v testbench.v
//     $ (cd FOLDER && ../obj_dir/Vtestbench)
`timescale 1ns/1ps
module testbench;
  localparam [11:0] CONTROL = 12'h040;

  reg clk = 0, resetn = 0, awvalid = 0, wvalid = 0;
  wire awready, wready, program_tvalid, program_tready, program_tlast, input_tvalid, input_tready, input_tlast;
  wire output_tvalid, output_tlast;
  wire [`STREAM_BITS-1:0] program_tdata, input_tdata, output_tdata;
  reg [`STREAM_BITS+3:0] word;
  integer expected, found, cycles = 0, words = 0, wrong = 0, idle = 0;

  always #5 clk = !clk;

  stream_source #(.BITS(`STREAM_BITS), .FILE("program.hex"), .LOOP(1)) program_source(
    .clk(clk), .resetn(resetn), .seed(32'd1), .stall(8'd0), .allowed(resetn ? 32'hffffffff : 32'd0), .sent(),
    .tvalid(program_tvalid), .tready(program_tready), .tdata(program_tdata), .tlast(program_tlast));
  stream_source #(.BITS(`STREAM_BITS), .FILE("input.hex")) input_source(
    .clk(clk), .resetn(resetn), .seed(32'd1), .stall(8'd0), .allowed(resetn ? 32'hffffffff : 32'd0), .sent(),
    .tvalid(input_tvalid), .tready(input_tready), .tdata(input_tdata), .tlast(input_tlast));

  accelerator accelerator(
    .aclk(clk), .aresetn(resetn), .interrupt(),
    .s_axis_program_tvalid(program_tvalid), .s_axis_program_tready(program_tready),
    .s_axis_program_tdata(program_tdata), .s_axis_program_tlast(program_tlast),
    .s_axis_input_tvalid(input_tvalid), .s_axis_input_tready(input_tready), .s_axis_input_tdata(input_tdata),
    .s_axis_input_tlast(input_tlast),
    .m_axis_output_tvalid(output_tvalid), .m_axis_output_tready(1'b1), .m_axis_output_tdata(output_tdata),
    .m_axis_output_tlast(output_tlast),
    .s_axil_awaddr(CONTROL), .s_axil_awvalid(awvalid), .s_axil_awready(awready), .s_axil_wdata(32'd1),
    .s_axil_wstrb(4'b1111), .s_axil_wvalid(wvalid), .s_axil_wready(wready), .s_axil_bresp(), .s_axil_bvalid(),
    .s_axil_bready(1'b1), .s_axil_araddr(12'd0), .s_axil_arvalid(1'b0), .s_axil_arready(), .s_axil_rdata(),
    .s_axil_rresp(), .s_axil_rvalid(), .s_axil_rready(1'b1));

  initial begin
    expected = $fopen("expected.hex", "r");
    repeat (3) @(posedge clk);
    resetn <= 1;
    awvalid <= 1;
    wvalid <= 1;
    @(posedge clk);
    found = $fscanf(expected, "%h", word);
    while (found == 1 && idle < 1000000) begin
      @(posedge clk);
      if (awready) awvalid <= 0;
      if (wready) wvalid <= 0;
      cycles = cycles + 1;
      idle = idle + 1;
      if (output_tvalid) begin
        idle = 0;
        words = words + 1;
        if (word !== {3'b000, output_tlast, output_tdata}) begin
          wrong = wrong + 1;
          if (wrong <= 10) $display("word %0d: expected %h, got %h", words, word, {3'b000, output_tlast, output_tdata});
        end
        found = $fscanf(expected, "%h", word);
      end
    end
    if (found == 1) $display("FAIL: no output word for %0d cycles", idle);
    else $display("%s: %0d words compared, %0d wrong, %0d cycles", wrong || !words ? "FAIL" : "PASS", words, wrong, cycles);
    $finish;
  end
endmodule
